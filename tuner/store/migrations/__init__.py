"""Alembic's home: one file in ``versions/`` for each change of our tables."""
