"""Ratios of paired rounds, on numbers whose answers are known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

Timing = Callable[[str], Any]


def test_quartiles_of_known_numbers(timing: Timing) -> None:
    assert timing("ratios").quartiles([5.0, 1.0, 4.0, 2.0, 3.0]) == (3.0, 2.0, 4.0)


def test_what_slows_a_round_slows_both_and_leaves_the_ratio(timing: Timing) -> None:
    under = np.random.default_rng(0).exponential(size=15)
    assert timing("ratios").ratio(2.5 * under, under) == pytest.approx((2.5, 2.5, 2.5))


def test_the_interval_is_that_of_the_median(timing: Timing) -> None:
    # The median of 7 draws with replacement is at most the k-th smallest with chance P(Binomial(7, k/7) >= 4): 0.010,
    # 0.108, ... for k = 1, 2; so its quantile of 2.5 % is the second smallest, far from either limit, and by symmetry
    # that of 97.5 % the second largest.
    each = np.array([1.0, 1.1, 1.3, 1.6, 2.0, 2.5, 3.1])
    under = np.random.default_rng(1).exponential(size=7)
    for order in (slice(None), slice(None, None, -1)):
        assert timing("ratios").ratio(each[order] * under, under) == pytest.approx((1.6, 1.1, 2.5))


def test_rounds_must_be_paired(timing: Timing) -> None:
    with pytest.raises(ValueError, match="same rounds, at least one, got 2 and 1"):
        timing("ratios").ratio([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="got 0 and 0"):
        timing("ratios").ratio([], [])
