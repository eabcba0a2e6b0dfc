"""The comparison of forecasts: what each method returns, and which values it sees."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

SEASON, LENGTH = 4, 48
VALUES = np.tile([10.0, 12.0, 15.0, 11.0], LENGTH // SEASON) + np.random.default_rng(0).normal(0, 0.1, LENGTH)
METHODS = [
    "seasonal naive",
    "ETS",
    "pyro.contrib.forecast",
    "GRU, plain",
    "GRU, equation (1)",
    "GRU, noise off",
    "GRU, smoothing guide",
    "GRU, filtering bound",
]


def test_all_methods_are_tested(forecast_peers: Any) -> None:
    assert [*forecast_peers.METHODS] == METHODS


@pytest.mark.parametrize("method", METHODS)
def test_samples(forecast_peers: Any, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if method == "ETS":
        pytest.importorskip("statsmodels")
    monkeypatch.setitem(forecast_peers.FORECASTER, "num_steps", 2)
    make, settings = forecast_peers.METHODS[method]
    for setting in settings[:: max(len(settings) - 1, 1)]:  # the first and the last
        forecast = make(VALUES[:36], SEASON, setting, 2)
        samples = forecast(VALUES[:40], 6)
        assert samples.shape == (forecast_peers.SAMPLES, 6) and samples.dtype == torch.float64
        assert samples.isfinite().all() and samples.std(0).min() > 0
        torch.testing.assert_close(forecast(VALUES[:40], 6), samples)  # the same seed


@pytest.mark.parametrize("method", ["seasonal naive", "GRU, plain"])
def test_seasonal_differences_are_summed(forecast_peers: Any, method: str) -> None:
    """Samples of a nearly periodic series are near the season before, within 0.5 where values differ by 1 or more."""
    make, settings = forecast_peers.METHODS[method]
    samples = make(VALUES[:36], SEASON, settings[-1], 60)(VALUES[:40], 8)
    np.testing.assert_allclose(samples.mean(0), np.tile(VALUES[36:40], 2), atol=0.5)


def test_origins(forecast_peers: Any) -> None:
    valid, test = forecast_peers.origins(100, 8, 3)
    assert test == [84, 88, 92] and valid == [68, 72, 76]
    assert valid[-1] + 8 <= test[0] and test[-1] + 8 == 100


def test_no_method_sees_what_it_forecasts(forecast_peers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    valid, test = forecast_peers.origins(LENGTH, SEASON, 2)
    seen: list[np.ndarray] = []

    def make(values: np.ndarray, season: int, setting: Any, steps: int) -> Any:
        seen.append(values)

        def forecast(history: np.ndarray, horizon: int) -> torch.Tensor:
            seen.append(history)
            return torch.zeros(10, horizon).double()

        return forecast

    monkeypatch.setattr(forecast_peers, "load", lambda name: (VALUES, SEASON))
    monkeypatch.setitem(forecast_peers.METHODS, "recorder", (make, [None]))
    assert len(list(forecast_peers.compare([("a", "recorder")], 2, 1))) == 1
    assert [len(values) for values in seen] == [valid[0], *valid, *test]
    assert all((values == VALUES[: len(values)]).all() for values in seen)


def test_scores(forecast_peers: Any) -> None:
    def certain(history: np.ndarray, horizon: int) -> torch.Tensor:
        return torch.from_numpy(np.tile(VALUES[len(history) : len(history) + horizon] + 1, (10, 1)))

    scores = forecast_peers.score(certain, VALUES, [36, 40], SEASON, 4)
    naive = np.mean([np.abs(VALUES[SEASON:n] - VALUES[: n - SEASON]).mean() ** -1 for n in (36, 40)])
    assert scores["crps"] == pytest.approx(1.0) and scores["mase"] == pytest.approx(naive)
    assert scores["coverage 0.8"] == 0.0
    row = {"series": "a", "method": "b"} | scores
    assert "| a | b | **1** ± " in forecast_peers.table([row, row | {"crps": 2.0}])


def test_series_of_statsmodels(forecast_peers: Any) -> None:
    pytest.importorskip("statsmodels")
    for name, season, length in (("co2", 12, 526), ("sunspots", 11, 309), ("elnino", 12, 732)):
        values, own = forecast_peers.load(name)
        assert own == season and values.shape == (length,) and np.isfinite(values).all()


def test_rows_that_are_done_are_not_run_again(
    forecast_peers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forecast_peers, "load", lambda name: (VALUES, SEASON))
    forecast_peers.main(("a",), ("seasonal naive",), 2, 1, tmp_path)
    before = json.loads((tmp_path / "forecast_peers.json").read_text())["rows"]
    forecast_peers.main(("a", "b"), ("seasonal naive",), 2, 1, tmp_path)
    rows = json.loads((tmp_path / "forecast_peers.json").read_text())["rows"]
    assert [row["series"] for row in rows] == ["a", "b"] and rows[:1] == before
    assert (tmp_path / "forecast_peers.md").read_text() == forecast_peers.table(rows)
    with pytest.raises(ValueError, match="has other settings"):
        forecast_peers.main(("a",), ("seasonal naive",), 3, 1, tmp_path)


def test_the_results_page_names_the_best_methods(forecast_peers: Any) -> None:
    rows = json.loads((forecast_peers.RESULTS / "forecast_peers.json").read_text())["rows"]
    assert {(row["series"], row["method"]) for row in rows} == set(product(("co2", "sunspots", "elnino"), METHODS))
    best = {row["series"]: row["method"] for row in sorted(rows, key=lambda row: -row["crps"])}
    assert best == {"co2": "ETS", "sunspots": "GRU, equation (1)", "elnino": "GRU, noise off"}
    narrow = [row["coverage 0.8"] for row in rows if row["series"] == "co2" and row["method"].startswith("GRU")]
    assert max(narrow) < 0.4
    assert forecast_peers.table(rows) == (forecast_peers.RESULTS / "forecast_peers.md").read_text()
    first = json.loads((forecast_peers.RESULTS / "forecast_peers-300-steps.json").read_text())["rows"]
    shown = ", ".join(f"{row['crps']:.3g}" for row in first if row["method"] == "pyro.contrib.forecast")
    page = (forecast_peers.RESULTS.parent / "docs" / "results.md").read_text()
    assert f"test scores of {' and '.join(shown.rsplit(', ', 1))}" in page
