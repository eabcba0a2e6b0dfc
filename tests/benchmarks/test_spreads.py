"""γ learned by several objectives: on the chorales with equal settings, and by the length of the sequences."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.image import imread

from noisin_pyro.training import Inference


def test_runs_on_the_chorales_differ_in_the_objective_alone(spreads: Any) -> None:
    common = set()
    for config in spreads.chorales_configs(7, 3).values():
        options = dataclasses.replace(config.optimization, num_particles=1, bound="elbo")
        common.add(dataclasses.replace(config, inference=Inference(), optimization=options))
    assert len(common) == 1 and common.pop().optimization.epochs == 7


@pytest.mark.slow
def test_each_objective_learns_at_each_length_and_an_entry_is_not_run_twice(
    spread_by_length: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(spread_by_length, "RESULTS", tmp_path)
    monkeypatch.setattr(spread_by_length, "GRADIENT_STEPS", 60)
    spread_by_length.main(lengths=(2,))
    monkeypatch.setattr(spread_by_length, "learn", None)  # would fail if it were called
    spread_by_length.main(lengths=(2,))
    runs = json.loads((tmp_path / "lengths.json").read_text())["runs"]
    assert list(runs) == list(spread_by_length.OBJECTIVES)
    gammas = [runs[name]["2"]["gamma"] for name in runs]
    assert gammas[0] < spread_by_length.START < min(gammas[1], gammas[3])  # the likeliest γ is near 1
    assert len({runs[name]["2"]["likeliest"] for name in runs}) == 1
    assert min(imread(tmp_path / "lengths.png").shape[:2]) > 200
