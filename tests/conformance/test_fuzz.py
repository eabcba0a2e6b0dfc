"""A sample of random combinations with fixed seeds; ``python -m tests.conformance.fuzz`` runs more."""

from collections.abc import Iterator

import pyro
import pytest

from .fuzz import Combination, check


@pytest.fixture(autouse=True)
def parameters_in_modules() -> Iterator[None]:
    with pyro.settings.context(module_local_params=True):
        yield


@pytest.mark.filterwarnings("ignore")  # few samples, among others
@pytest.mark.parametrize("seed", range(40))
def test_combination(seed: int) -> None:
    assert check(Combination.draw(seed))


def test_most_combinations_run() -> None:
    """A sample in which everything is refused would show nothing."""
    combinations = [Combination.draw(seed) for seed in range(60)]
    built = 0
    for combination in combinations:
        try:
            combination.model()
        except ValueError:
            continue
        built += 1
    assert built > 45
    for field in ("cell", "noise", "backend", "regularizer", "guide", "method", "state"):
        assert len({getattr(combination, field) for combination in combinations}) >= 3
