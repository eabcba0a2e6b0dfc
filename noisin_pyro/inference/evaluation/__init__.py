"""Scoring held-out data. Start at ``evaluate``."""
