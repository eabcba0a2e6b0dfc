"""``noisin sweep``: from options to a space, and the table at the end."""

import json
import signal
from pathlib import Path

import pytest

from noisin_pyro.cli import main

from ..hooks import AfterStep

SMALL = "--batch-size 4 --window 10 --hidden-size 4 --epochs 3 --trial-epochs 2 --ensemble-samples 2"


def _sweep(texts: Path, *options: str) -> int:
    return main(["sweep", "--data", str(texts), *SMALL.split(), *options])


def test_the_table_has_every_trial_best_first_and_the_best_runs_numbers(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _sweep(texts) == 0
    captured = capsys.readouterr()
    where = Path("runs", f"{texts.name}-sweep-1", "search.json")
    content = json.loads(where.read_text())
    trials = {trial["number"]: trial for trial in content["of_each_trial"]}
    values = [(t["values"]["noise.noise"], t["values"]["noise.spread"]) for t in trials.values()]
    assert values == [(f"gaussian{form}", γ) for form in ("", ":multiplicative") for γ in (0.25, 0.5, 1.0)]
    lines = captured.out.splitlines()
    title = lines.index(next(line for line in lines if line.startswith("trial ")))
    order = [trials[int(line.split()[0])] for line in lines[title + 1 : title + 7]]
    done = [trial["valid_nats"] for trial in order if trial["state"] == "complete"]
    assert (
        done == sorted(done) and order[0]["number"] == content["best"] and order[-1]["state"] in ("complete", "pruned")
    )
    assert f"trial {content['best']}, trained to its end" in lines and lines[-1] == f"all trials: {where}"
    assert next(line for line in lines if line.startswith("noisy")).split()[1:4] == ["3", "of", "3"]
    assert "trial 0: noise.noise gaussian, noise.spread 0.25" in captured.err.splitlines()
    for noise in ("A new study", "Trial 0 finished", "Experimental"):
        assert noise not in captured.err


@pytest.mark.slow
def test_any_field_is_searched_and_more_trials_resume_the_search(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = tmp_path / "s"
    options = "--spreads 0.3 --noises laplace --learning-rates log:1e-3..1e-1 --no-prune --trials 2"
    search = ["model.cell=gru,lstm", "optimization.clip=none,5", "model.hidden_size=2..4"]
    assert _sweep(texts, "--folder", str(where), *options.split(), "--search", *search) == 0
    content = json.loads((where / "search.json").read_text())
    assert content["space"] == {
        "noise.noise": ["laplace"],
        "noise.spread": [0.3],
        "optimization.learning_rate": {"low": 0.001, "high": 0.1, "log": True},
        "model.cell": ["gru", "lstm"],
        "optimization.clip": [None, 5],
        "model.hidden_size": {"low": 2, "high": 4, "log": False},
    }
    assert content["versions"]["optuna"] and content["data_sha256"]
    assert (content["trials"], content["prune"], content["sampler"]) == (2, False, "TPE")
    assert main(["sweep", "--resume", str(where), "--trials", "3"]) == 0
    more = json.loads((where / "search.json").read_text())
    assert len(more["of_each_trial"]) == 3 and more["of_each_trial"][:2] == content["of_each_trial"]
    capsys.readouterr()
    assert main(["sweep", "--resume", str(where), "--trials", "2"]) == 2
    assert main(["sweep", "--resume", str(where), "--seed", "2"]) == 2
    assert main(["sweep", "--resume", str(texts)]) == 2
    few, other, none = capsys.readouterr().err.splitlines()
    assert "trials 2 (there: 3" in few and "keeps its options" in other and "no search to resume" in none


def test_interrupted_it_prints_how_to_resume(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], after_step: AfterStep
) -> None:
    options = ("--folder", str(tmp_path / "s"), "--spreads", "0.3", "0.6", "--noises", "gaussian")
    after_step(1, lambda: signal.raise_signal(signal.SIGINT))
    assert _sweep(texts, *options) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    command = f"noisin sweep --resume {tmp_path / 's'}"
    assert last == f"noisin: interrupted; resume with: {command}"
    assert main(command.split()[1:]) == 0
    assert [trial["state"] for trial in json.loads((tmp_path / "s" / "search.json").read_text())["of_each_trial"]] == [
        "complete", "complete"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--spread 0.3", "--spread holds for all trials, and --spreads is searched"),
        ("--spreads 0.1..0.2..0.3", "a range is LOW..HIGH"),
        ("--spreads a..b", "a range is LOW..HIGH"),
        ("--spreads 0.3 much", "noise.spread cannot be 'much'"),
        ("--spreads 0.9..0.3", "to a larger one"),
        ("--noises gausian", "did you mean 'gaussian'"),
        ("--search model.cel=gru", "did you mean 'model.cell'"),
        ("--search model.cell", "needs FIELD=VALUES"),
        ("--search noise.spread=0.1,0.2", "is searched twice"),
        ("--trials 0", "--trials must be at least 1"),
        ("--trial-epochs 0", "--trial-epochs must be at least 1"),
        ("--storage nothing://here", "storage 'nothing://here' cannot be opened"),
        ("--storage sweeps.db", "storage 'sweeps.db' cannot be opened"),
        ("--hidden-size 0", "--hidden-size must be at least 1"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    assert main(["sweep", "--data", str(texts), "--folder", str(tmp_path / "s"), *options.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("noisin: ") and message in line
    assert not (tmp_path / "s").exists()
