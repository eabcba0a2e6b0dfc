"""Statistics of paired rounds: in a round every contestant is timed once, so that what slows a round slows all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES, COVERAGE = 10_000, 0.95


class Spread(NamedTuple):
    """Median and quartiles."""

    median: float
    low: float
    high: float


class Ratio(NamedTuple):
    """The median over rounds of a ratio, and its interval of 95 %."""

    median: float
    low: float
    high: float


def quartiles(values: Sequence[float]) -> Spread:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
    return Spread(median, low, high)


def ratio(over: Sequence[float], under: Sequence[float], seed: int = 0) -> Ratio:
    """``over`` / ``under``, round by round; the interval by the percentile bootstrap over rounds.

    Raises:
        ValueError: other numbers of rounds, or none.
    """
    if len(over) != len(under) or not len(over):
        raise ValueError(f"over and under must have the same rounds, at least one, got {len(over)} and {len(under)}")
    each = np.asarray(over) / np.asarray(under)
    drawn = np.random.default_rng(seed).integers(len(each), size=(RESAMPLES, len(each)))
    ends = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    low, high = np.quantile(np.median(each[drawn], axis=1), ends).tolist()
    return Ratio(float(np.median(each)), low, high)
