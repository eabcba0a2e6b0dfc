"""The programs in benchmarks/, which are run from there and not installed."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from noisin_pyro.reproduction import ReproductionOptions

from ..commands.conftest import chorales

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SMALL = {"model.hidden_size": 4, "optimization.epochs": 2, "data.batch_size": 2, "dmm.epochs": 10}


def _program(name: str, patch: pytest.MonkeyPatch) -> Any:
    patch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module(name)


@pytest.fixture
def dmm(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _program("dmm", monkeypatch)


@pytest.fixture
def linear_gaussian(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _program("linear_gaussian", monkeypatch)


@pytest.fixture
def filtering_bound(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _program("filtering_bound", monkeypatch)


@pytest.fixture
def filtering_step(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _program("filtering_step", monkeypatch)


@pytest.fixture
def first_forecast(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _program("first_forecast", monkeypatch)


@pytest.fixture
def music(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _program("music", monkeypatch)


@pytest.fixture
def small(music: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Runs a row of the music table on three short pieces with one trial of one epoch."""
    file = str(chorales(tmp_path))
    monkeypatch.setattr(music.nz.data, "load", lambda name: music.nz.data.load_music(file))
    options = ReproductionOptions(trials=1, trial_epochs=1, changes=SMALL | {"data.name": file})

    def run(row: str, seed: int = 11, limit: Any = lambda rows: None) -> bool:
        return music.run_row(music.recipes("jsb")[row], tmp_path / "jsb", seed, options, limit, scale=0.01)

    return run


@pytest.fixture
def music_particles(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _program("music_particles", monkeypatch)


@pytest.fixture
def music_recipes(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _program("music_recipes", monkeypatch)


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _program("speed", monkeypatch)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _program("gpu", monkeypatch)


@pytest.fixture
def timing(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """A part of the benchmarks of speed, by name."""
    monkeypatch.delenv("NOISIN_DATA", raising=False)
    return lambda name: _program(f"timing.{name}", monkeypatch)


@pytest.fixture
def particle_filter(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _program("particle_filter", monkeypatch)


@pytest.fixture
def read_text(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _program("read_text", monkeypatch)


@pytest.fixture
def output_noise(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _program("output_noise", monkeypatch)


@pytest.fixture
def spreads(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _program("spreads", monkeypatch)


@pytest.fixture
def spread_by_length(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _program("spread_by_length", monkeypatch)


@pytest.fixture
def forecast_peers(monkeypatch: pytest.MonkeyPatch) -> Any:
    return _program("forecast_peers", monkeypatch)
