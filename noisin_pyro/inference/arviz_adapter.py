"""What ArviZ computes for us, from plain arrays to plain arrays: all that depends on its version is here."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

EQUAL = 1e-3
"""Log-weights that differ by less are those of equal weights, but for rounding in float32: no tail to fit."""


def pareto_k(log_weights: np.ndarray) -> np.ndarray:
    """The shape k̂ of the Pareto tail of each row of log-weights, ``(N, S)`` to ``(N,)``.

    Infinite where fewer than five weights are in the tail (with fewer than some 25 samples, or where all but a few
    vanish), -infinite where all weights are equal.

    Source: Vehtari, Simpson, Gelman, Yao, Gabry, *Pareto smoothed importance sampling*, JMLR 25 (2024).
    """
    log_weights = np.asarray(log_weights, dtype=np.float64)
    highest = log_weights.max(1)
    equal = log_weights.min(1) > highest - EQUAL
    fitted = np.isfinite(highest) & ~equal
    found = np.where(equal, -np.inf, np.inf)
    if fitted.any():
        with np.errstate(all="ignore"):  # hopeless tails overflow on the way to a large k̂
            _, found[fitted] = load().psislw(log_weights[fitted])
    return found


def load() -> Any:
    """The package, imported where it is first needed: that takes a second or two."""
    with warnings.catch_warnings():
        # once a day version 0.23 announces version 1
        warnings.filterwarnings("ignore", r"\s*ArviZ is undergoing a major refactor", FutureWarning)
        import arviz

    return arviz
