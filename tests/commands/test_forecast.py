"""``noisin forecast`` and ``noisin evaluate --method forecast``."""

import json
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest

import noisin_pyro as nz
from noisin_pyro.cli import main
from noisin_pyro.training import Config, Data, Model, Optimization, Run, train


def test_forecast_of_a_table(counts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    future, csv, png = str(counts.parent / "future.csv"), tmp_path / "new.csv", tmp_path / "new.png"
    options = ["--steps", "3", "--samples", "50", "--future", future]
    assert main(["forecast", str(counts), *options, "--csv", str(csv), "--png", str(png)]) == 0
    frame = pd.read_csv(csv, parse_dates=["day"])
    assert frame["shop"].tolist() == ["a"] * 3 + ["b"] * 3
    assert frame["day"].tolist() == [*pd.date_range("2026-02-10", periods=3)] * 2
    run = nz.load(counts)
    result = nz.forecast(run.model, run.corpus.test, 3, 50, run.guide, covariates=np.full((2, 3, 1), 0.5), seed=0)
    np.testing.assert_allclose(frame["mean"], result.mean.flatten())
    assert matplotlib.image.imread(png).std() > 0
    assert "2026-02-10" in capsys.readouterr().out
    # a table of one's own, from its end
    other = pd.read_csv(counts.parent / "sold.csv")
    other[other["day"] < "2026-02-01"].to_csv(tmp_path / "other.csv", index=False)
    known = other[(other["day"] >= "2026-02-01") & (other["shop"] == "a")]
    pd.concat([known, known.assign(shop="b")]).to_csv(tmp_path / "known.csv", index=False)
    options = ["--steps", "2", "--data", str(tmp_path / "other.csv"), "--future", str(tmp_path / "known.csv")]
    assert main(["forecast", str(counts), *options, "--missing", "draw", "--proposal", "prior"]) == 0
    assert "2026-02-02" in capsys.readouterr().out


def test_forecast_of_irregular_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The future times are given; ids that look like numbers stay as they are."""
    days = pd.date_range("2026-01-01", periods=9) + pd.to_timedelta(np.arange(9) ** 2, "h")
    rows = [("001", day, i / 2) for i, day in enumerate(days)]
    pd.DataFrame(rows, columns=["shop", "day", "sold"]).to_csv(tmp_path / "sold.csv", index=False)
    data = Data(name=str(tmp_path / "sold.csv"), id="shop", time="day", time_difference=True)
    run = Run(folder=tmp_path / "run", twin=False, ensemble_samples=0)
    train(Config(data=data, model=Model(hidden_size=2), optimization=Optimization(epochs=1), run=run))
    assert main(["forecast", str(tmp_path / "run"), "--steps", "2"]) == 2
    assert "--future must be given, a table of day in the future" in capsys.readouterr().err
    times = ["2026-02-01 12:00:00", "2026-02-01 13:30:00"]
    pd.DataFrame({"shop": "001", "day": times}).to_csv(tmp_path / "future.csv", index=False)
    options = ["--steps", "2", "--samples", "9", "--future", str(tmp_path / "future.csv"), "--csv", str(tmp_path / "f")]
    assert main(["forecast", str(tmp_path / "run"), *options, "--png", str(tmp_path / "f.png")]) == 0
    frame = pd.read_csv(tmp_path / "f", dtype=str)
    assert frame["day"].tolist() == times and frame["shop"].tolist() == ["001"] * 2


@pytest.mark.parametrize("command", ["forecast", "evaluate"])
def test_a_table_that_is_gone_can_be_replaced(
    command: str, counts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(counts, tmp_path / "copy")
    config = folder / "config.json"
    config.write_text(config.read_text().replace("sold.csv", "gone.csv"))
    future = ["--future", str(counts.parent / "future.csv")] if command == "forecast" else []
    assert main([command, str(folder), *future]) == 2
    assert "gone.csv cannot be read" in (line := capsys.readouterr().err)
    assert line.endswith("; --data FILE reads another file in place of the run's own\n")


def test_forecast_of_music(music: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forecast", str(music), "--steps", "2", "--samples", "3"]) == 0
    assert f"... {3 * 2 * 88 - 40} more rows" in capsys.readouterr().out


def test_scores(counts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--steps", "2", "--origins", "2", "--stride", "1", "--season", "7", "--samples", "40"]
    command = ["evaluate", str(counts), "--method", "forecast", *options]
    assert main([*command, "--json", str(tmp_path / "scores.json")]) == 0
    out = capsys.readouterr().out
    assert "noise from the run's filtering guide" in out and "coverage 0.95" in out
    run = nz.load(counts)
    scores = nz.forecast_scores(
        run.model, run.corpus.test, 2, 2, stride=1, season=7, num_samples=40, guide=run.guide, seed=0
    )
    content = json.loads((tmp_path / "scores.json").read_text())
    assert content["crps"] == pytest.approx(scores.crps) and content["mase"] == pytest.approx(scores.mase)
    assert content["num_values"] == scores.num_values == 8
    assert main(["evaluate", str(counts), "--method", "forecast", "--samples", "9"]) == 0
    assert "4 steps each" in capsys.readouterr().out  # all that the test part has
    assert main(["evaluate", str(counts), "--method", "forecast", "--steps", "5", "--samples", "9"]) == 2
    assert "of which up to 4 are scored" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["forecast", "{counts}"], "--future must be given, a table of weekday in the future"),
        (["forecast", "{music}", "--future", "x.csv"], "--future is for a run with covariates"),
        (["forecast", "{run}"], "is a run on a text; use noisin generate"),
        (["generate", "{counts}"], "is a run on a table, which has no vocabulary; use noisin forecast"),
        (["forecast", "{music}", "--proposal", "guide"], "--proposal 'guide': the run in"),
        (["forecast", "{music}", "--steps", "0"], "--steps must be a positive integer, got 0"),
        (["forecast", "{counts}", "--future", "{future}"], "no row of series 'a' at the future time 2026-02-15"),
        (["evaluate", "{music}", "--origins", "2"], "--origins: only for method 'forecast', not 'mean'"),
        (["evaluate", "{run}", "--method", "forecast"], "is for series and music, not for a text"),
        (["evaluate", "{music}", "--method", "forecast", "--threshold", "0.5"], "--per-token or --threshold"),
    ],
)
def test_refusals(
    arguments: list[str], message: str, counts: Path, music: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = {"counts": counts, "music": music, "run": run, "future": counts.parent / "future.csv"}
    assert main([each.format(**folders) for each in arguments]) == 2
    assert message in capsys.readouterr().err
