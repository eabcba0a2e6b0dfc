"""``noisin compare``: several runs in one table."""

import csv
import json
from pathlib import Path

import pytest
from matplotlib.image import imread

from noisin_pyro.cli import main

from .malformed import contents


def _compared(arguments: list[str], file: Path) -> list[dict[str, str]]:
    assert main(["compare", *arguments, "--csv", str(file)]) == 0
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def test_each_number_is_that_of_evaluate(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, picture = contents(run), tmp_path / "table.png"
    folders = [str(run), str(run / "deterministic")]
    options = ["--split", "valid", "--samples", "20", "--seed", "3"]
    rows = _compared([*folders, *options, "--png", str(picture)], tmp_path / "table.csv")
    assert [(row["model"], row["method"]) for row in rows] == [
        *((folders[0], method) for method in ("mean", "ensemble", "importance", "particle-filter")),
        (folders[1], "mean"),
    ]
    shown, progress = capsys.readouterr()
    assert progress.splitlines() == [f"scoring {row['model']}: {row['method']}" for row in rows]
    for index, row in enumerate(rows):
        file = tmp_path / f"{index}.json"
        single = ["--split", "valid", "--seed", "3", "--method", row["method"], "--json", str(file)]
        samples = [] if row["method"] == "mean" else ["--samples", "20"]
        assert main(["evaluate", row["model"], *single, *samples]) == 0
        result = json.loads(file.read_text())
        for column in ("kind", "nats_per_step", "monte_carlo_error", "standard_error"):
            assert row[column] == str(result[column])
        assert f"{result['nats_per_step']:.4f}" in shown
    assert "Lower is better" in shown and imread(picture).std() > 0.01
    assert contents(run) == before


def test_music_has_its_numbers_too(music: Path, tmp_path: Path) -> None:
    (row,) = _compared([str(music), "--methods", "particle-filter", "mean"], tmp_path / "table.csv")
    assert (row["method"], row["kind"], row["gap"]) == ("particle-filter", "exact", "")
    expected = json.loads((music / "result.json").read_text())["test"]
    assert float(row["nats_per_step"]) == pytest.approx(expected["nats_per_step"])


def test_runs_of_other_precisions_are_refused(music: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "run")
    options = ["--data", str(music.parent / "Chorales.mat"), "--precision", "float64", "--spread", "0"]
    sizes = ["--hidden-size", "4", "--epochs", "1", "--batch-size", "2", "--folder", folder]
    assert main(["train", *options, *sizes]) == 0
    capsys.readouterr()
    assert main(["compare", str(music), folder]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "in float32" in line and "in float64" in line


def test_importance_is_from_the_prior_and_from_the_guide(
    guided: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = _compared([str(guided), "--samples", "8"], tmp_path / "table.csv")
    assert [(row["method"], row["guide"]) for row in rows] == [
        ("mean", ""), ("ensemble", ""), ("importance", "prior"), ("importance", "smoothing"),
        ("particle-filter", "prior"), ("particle-filter", "smoothing"),
    ]  # fmt: skip
    file = tmp_path / "found.json"
    options = ["--method", "importance", "--samples", "8"]
    assert main(["evaluate", str(guided), *options, "--json", str(file)]) == 0
    assert "from the run's smoothing guide" in capsys.readouterr().out
    result = json.loads(file.read_text())
    assert result["guide"] == "smoothing" and rows[3]["nats_per_step"] == str(result["nats_per_step"])
    filtering = ["--method", "particle-filter", "--samples", "8", "--proposal"]
    assert main(["evaluate", str(guided), *filtering, "guide", "--threshold", "0"]) == 0
    output = capsys.readouterr().out
    assert "8 particles per sequence, noise from the run's smoothing guide" in output and "0.0 for each seq" in output
    assert main(["evaluate", str(guided), "--proposal", "guide"]) == 2
    assert "proposal is for methods importance, particle-filter and forecast" in capsys.readouterr().err
    assert main(["evaluate", str(guided), *options, "--per-token", str(tmp_path / "tokens.csv")]) == 2
    assert "noisin: --per-token: a guide conditions on all of x" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("", "at least one run"),
        ("{run} {run}", "each given once"),
        ("{run} {music}", "same data"),
        ("{run} nowhere", "not a run's folder"),
        ("{run} --methods", "at least one of mean"),
        ("{run} --methods median", "--methods"),
        ("{run} --methods mean --samples 3", "no effect on methods mean"),
        ("{run} --samples 1 --methods ensemble", "at least 2"),
        ("{run} --samples 6", "got 6; while scoring"),
        ("{run} --seed -1", "seed"),
        ("{run} --window 0", "window must be at least 1"),
        ("{music} --window 5", "--window 5 is for texts"),
        ("{run} --csv {run}/best.pt", "nothing is overwritten"),
        ("{run} --csv {run}/one --png {run}/one", "use different names"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    run: Path, music: Path, arguments: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *arguments.format(run=run, music=music).split()]) == 2
    *progress, line = capsys.readouterr().err.splitlines()
    assert named in line.lower() and all(each.startswith("scoring ") for each in progress)
