"""Parametrization over families, and the false-alarm rate of all statistical tests here."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist

import pytest
import torch
from pyro import validation_enabled
from torch import Tensor

from noisin_pyro.noise import Family, describe, get

FALSE_ALARM_RATE = 1e-6
"""False-alarm rate of each test, over all its comparisons (Bonferroni). With fewer than 300 tests: 3e-4 in total."""

FAMILIES = [get(entry.name, entry.form) for entry in describe()]

SELECTIONS: dict[str, Callable[[Family], bool]] = {
    "family": lambda family: True,
    "continuous": lambda family: not family.discrete and family.name != "dirichlet",
    "discrete": lambda family: family.discrete,
    "with_innovations": lambda family: family.has_innovations,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for fixture, select in SELECTIONS.items():
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, [f for f in FAMILIES if select(f)], ids=str)


@pytest.fixture
def assert_mean() -> Callable[[Tensor, Tensor], None]:
    """z-tests that samples ``(N, ...)`` average to ``expected``, allowing for rounding."""

    def compare(draws: Tensor, expected: Tensor) -> None:
        rounding = torch.finfo(draws.dtype).eps
        draws, expected = draws.double(), torch.as_tensor(expected).double().expand(draws.shape[1:])
        error = draws.std(0) / math.sqrt(len(draws)) + rounding * (1 + expected.abs())
        z_scores = (draws.mean(0) - expected).abs() / error
        critical = -NormalDist().inv_cdf(FALSE_ALARM_RATE / expected.numel() / 2)
        assert (z_scores < critical).all(), f"{draws.mean(0)} is not {expected}: {z_scores} standard errors"

    return compare


@pytest.fixture
def false_alarm_rate() -> float:
    return FALSE_ALARM_RATE


@pytest.fixture
def means() -> Callable[[Family], Tensor]:
    """Three means inside the family's range, on both sides of 0 where it has two."""

    def inside(family: Family) -> Tensor:
        low, high = family.mean_range
        if math.isinf(low):
            return torch.tensor([-1.2, 0.4, 0.9], dtype=torch.float64)
        top = min(high, 2.0)
        return torch.tensor([0.2, 0.45, 0.8], dtype=torch.float64) * top

    return inside


@pytest.fixture
def no_validation() -> Iterator[None]:
    with validation_enabled(False):
        yield
