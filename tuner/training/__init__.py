"""One trial: from a plan to a result. Plain torch, one loop, no database and no search in sight."""

from __future__ import annotations
