"""Searches replayed against recorded learning curves, on a simulated clock."""
