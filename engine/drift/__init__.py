"""Baselines and drift statistics: what the data looked like, and whether it still does."""
