"""The protocol: settings that all contestants share, and their time limits."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from noisin_pyro import Config

VALID = {0.25: 8.5, 0.5: 8.25, 1.0: 8.75}


@pytest.fixture
def runs(chorales: Any, monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations that were run, where each run takes exactly its minutes."""
    configs: list[Config] = []

    def finish(config: Config) -> Any:
        configs.append(config)
        valid = SimpleNamespace(nats_per_step=VALID.get(config.noise.spread))
        return SimpleNamespace(valid=valid, folder=config.run.folder)

    def seconds(where: Path) -> float:
        (minutes,) = (config.optimization.minutes for config in configs if config.run.folder == where)
        return 60 * minutes

    monkeypatch.setattr(chorales, "finish", finish)
    monkeypatch.setattr(chorales, "seconds", seconds)
    return configs


def test_all_contestants_have_the_same_time_and_settings(chorales: Any, runs: list[Config], tmp_path: Path) -> None:
    common = set()
    for name in set(chorales.NAMES) - {"dmm"}:
        runs.clear()
        chorales.train(name, tmp_path, 20.0, 3)
        assert sum(run.optimization.minutes or 0 for run in runs) == pytest.approx(20.0)
        assert runs[-1].run.folder == tmp_path / name
        for run in runs:
            options = dataclasses.replace(run.optimization, minutes=None)
            common.add((run.data, run.model, options, run.run.seed, run.run.twin))
    assert len(common) == 1


def test_without_a_guide_the_spread_is_chosen_in_validation(chorales: Any, runs: list[Config], tmp_path: Path) -> None:
    extra = chorales.train("bernoulli", tmp_path, 20.0, 0)
    assert {run.noise.noise for run in runs} == {"bernoulli:multiplicative"}
    assert [run.noise.spread for run in runs] == [*chorales.GAMMAS, 0.5]
    assert extra["search"]["valid_nats"] == VALID and extra["search"]["seconds"] == pytest.approx(360)
