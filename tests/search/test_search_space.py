"""Spaces of a search, and invalid ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from noisin_pyro.search import Range, search
from noisin_pyro.training import Config

from .runs import Texts, small_config


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "space is empty"),
        ({"noise.spred": (0.1,)}, "did you mean 'noise.spread'"),
        ({"data.name": ("ptb", "pydocs")}, "space: a name must be one of"),
        ({"noise.spread": ()}, "tuple of choices or a Range"),
        ({"noise.spread": [0.1]}, "tuple of choices or a Range"),
        ({"noise.spread": (0.1, 0.1)}, "a choice twice"),
        ({"noise.spread": (0.1, -0.1)}, "noise.spread cannot be -0.1: spread must be at least 0"),
        ({"noise.spread": Range(-1.0, 0.1)}, "noise.spread cannot be -1.0"),
        ({"noise.noise": ("gausian",)}, "did you mean 'gaussian'"),
        ({"noise.noise": (("a", "b"),)}, "noise.noise cannot be \\('a', 'b'\\)"),
        ({"model.cell": ("elman",)}, "model.cell cannot be 'elman'"),
        ({"model.cell": Range(0.0, 1.0)}, "model.cell cannot be 0.0: cell must be"),
        (
            {"model.hidden_size": Range(1.5, 3.0)},
            "model.hidden_size cannot be 1.5: hidden size must be a valid integer",
        ),
        ({"optimization.schedule_factor": (1.5,)}, "schedule factor is for schedule 'divide'"),
    ],
)
def test_an_invalid_space_is_refused(tmp_path: Path, space: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(Config(), space, tmp_path / "s", trials=1, trial_epochs=1)
    assert not (tmp_path / "s").exists()


def test_a_space_may_combine_dependent_options(texts: Texts, tmp_path: Path) -> None:
    space = {"optimization.schedule": ("divide",), "optimization.schedule_factor": (1.5, None)}
    result = search(small_config(texts, epochs=1), space, tmp_path / "s", trials=2, trial_epochs=1, finish=False)
    assert [trial.state for trial in result.trials] == ["complete"] * 2


@pytest.mark.parametrize(
    "ends", [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0), ("a", "b"), (False, True)]
)
def test_a_range_has_two_ends_in_order(ends: Any) -> None:
    with pytest.raises(ValueError, match="range must be from"):
        Range(*ends)
    with pytest.raises(ValueError, match="positive"):
        Range(0.0, 1.0, log=True)


def test_numbers_of_numpy_are_those_of_python(texts: Texts, tmp_path: Path) -> None:
    space = {"noise.spread": tuple(np.linspace(0.25, 0.75, 3, dtype=np.float32)), "model.hidden_size": (np.int64(4),)}
    plain = {"noise.spread": (0.25, 0.5, 0.75), "model.hidden_size": (4,)}
    config = small_config(texts, epochs=1)
    first = search(config, space, tmp_path / "s", trials=np.int64(1), trial_epochs=np.int32(1), finish=False)  # type: ignore[arg-type]
    again = search(config, plain, tmp_path / "s", trials=2, trial_epochs=1, finish=False)
    assert again.trials[:1] == first.trials and len(again.trials) == 2
    assert Range(np.float32(0.5), np.float64(2)) == Range(0.5, 2.0)
    assert type(Range(np.int64(2), np.int64(3)).low) is int
