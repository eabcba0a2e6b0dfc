"""Thresholds of diagnostics."""

MAX_PARETO_K = 0.7
"""Pareto k̂ above which the mean of importance weights is unreliable (Vehtari et al., 2024)."""
