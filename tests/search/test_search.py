"""Searches of very short runs: what they try, what they skip, and that interruptions do not change the result."""

import builtins
import dataclasses
import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from filelock import FileLock

from noisin_pyro.search import Range, SearchResult, search
from noisin_pyro.training import Config, Data, Model, Noise, Optimisation, Run, StopTraining, train
from noisin_pyro.training.rundir import checkpointer, metrics_log

from ..hooks import AfterStep
from ..processes import run_or_fail

Texts = tuple[Path, Path, Path]
FAMILIES = ("gaussian", "gaussian:multiplicative")


def _config(texts: Texts, **optimisation: Any) -> Config:
    return Config(
        data=Data(files=texts, batch_size=4, window=10),
        model=Model(hidden_size=4),
        optimisation=Optimisation(**{"learning_rate": 0.02, "epochs": 4} | optimisation),
        run=Run(ensemble_samples=2),
    )


def _trials(folder: Path) -> list[dict[str, Any]]:
    """The trials in ``search.json``, without their seconds."""
    trials = json.loads((folder / "search.json").read_text())["of_each_trial"]
    assert all(trial.pop("seconds") >= 0 for trial in trials)
    return trials


def _bits(folder: Path) -> tuple[list[metrics_log.Row], dict[str, Any], dict[str, torch.Tensor]]:
    """All numbers of a finished run, times apart, and its parameters."""
    rows = metrics_log.read(folder / "log.csv")
    for row in rows:
        del row["seconds"], row["tokens_per_second"]
    content = json.loads((folder / "result.json").read_text())
    return (
        rows,
        {key: content[key] for key in ("valid", "test", "test_ensemble", "best_epoch")},
        (checkpointer.load(folder / "best.pt")["model"]),
    )


def _assert_same_run(actual: Path, expected: Path) -> None:
    (*numbers, weights), (*others, more) = _bits(actual), _bits(expected)
    assert numbers == others
    torch.testing.assert_close(weights, more, rtol=0, atol=0)


@pytest.mark.parametrize("epochs", [1, 4])
def test_a_run_paused_after_an_epoch_ends_as_one_without_a_break(texts: Texts, tmp_path: Path, epochs: int) -> None:
    def of(name: str) -> Config:
        config = dataclasses.replace(_config(texts), noise=Noise(learn_spread=True))
        return dataclasses.replace(config, run=Run(folder=tmp_path / name, twin=False, ensemble_samples=2))

    counted = []
    train(of("whole"), lambda rows: counted.append(len(rows)))
    assert counted == [1, 2, 3, 4]

    def pause(rows: list[metrics_log.Row]) -> None:
        if len(rows) == epochs:
            raise StopTraining

    with pytest.raises(StopTraining) as paused:
        train(of("broken"), pause)
    assert not getattr(paused.value, "__notes__", [])
    files = {"config.json", "log.csv", "best.pt", "last.pt", *(["before.pt"] if epochs > 1 else [])}
    assert {path.name for path in (tmp_path / "broken").iterdir()} == files
    with pytest.raises(StopTraining):  # there already
        train(Config(run=Run(resume=tmp_path / "broken")), pause)
    assert len(metrics_log.read(tmp_path / "broken" / "log.csv")) == epochs
    train(Config(run=Run(resume=tmp_path / "broken")))
    _assert_same_run(tmp_path / "broken", tmp_path / "whole")


def test_choices_are_all_tried_once_and_the_best_is_the_run_without_a_search(texts: Texts, tmp_path: Path) -> None:
    space = {"noise.family": FAMILIES, "noise.spread": (0.1, 0.8)}
    result = search(_config(texts), space, tmp_path / "s", trials=9, trial_epochs=2, prune=False)
    assert [tuple(trial.values.values()) for trial in result.trials] == list(itertools.product(FAMILIES, (0.1, 0.8)))
    assert {trial.state for trial in result.trials} == {"complete"} and {trial.epochs for trial in result.trials} == {2}
    best = min(result.trials, key=lambda trial: trial.valid_nats or 0.0)
    assert (
        result.best == best
        and result.result is not None
        and result.result.folder == tmp_path / "s" / f"trial-{best.number}"
    )
    for trial in result.trials:
        rows = metrics_log.read(tmp_path / "s" / f"trial-{trial.number}" / "log.csv")
        assert trial.valid_nats == pytest.approx(min(row["valid_nats"] for row in rows[:2]), rel=1e-5)
        assert len(rows) == (4 if trial == best else 2)

    noise = Noise(family=best.values["noise.family"], spread=best.values["noise.spread"])
    config = dataclasses.replace(_config(texts), noise=noise)
    train(dataclasses.replace(config, run=Run(folder=tmp_path / "alone", twin=False, ensemble_samples=2)))
    _assert_same_run(result.result.folder, tmp_path / "alone")
    assert result.table().splitlines()[1].split()[:4] == [str(best.number), noise.family, f"{noise.spread:g}", "2"]


def test_no_combination_of_choices_is_tried_twice(texts: Texts, tmp_path: Path) -> None:
    space = {"noise.family": FAMILIES, "noise.spread": (0.1, 0.8), "model.cell": ("tanh", "relu")}
    config = _config(texts, epochs=1)
    first = search(config, space, tmp_path / "s", trials=6, trial_epochs=1, seed=3, finish=False)
    assert len({str(trial.values) for trial in first.trials}) == 6 and first.result is None
    again = search(config, space, tmp_path / "again", trials=6, trial_epochs=1, seed=3, finish=False)
    assert again.trials == [
        dataclasses.replace(trial, seconds=other.seconds)
        for trial, other in zip(first.trials, again.trials, strict=True)
    ]
    more = search(config, space, tmp_path / "s", trials=20, trial_epochs=1, seed=3, finish=False)
    assert more.trials[:6] == first.trials and len({str(trial.values) for trial in more.trials}) == 8 == len(
        more.trials
    )


def test_proposals_stay_in_their_ranges_and_use_earlier_trials(texts: Texts, tmp_path: Path) -> None:
    space = {"optimisation.learning_rate": Range(1e-5, 0.1, log=True), "model.hidden_size": Range(2, 6)}
    result = search(_config(texts), space, tmp_path / "s", trials=16, trial_epochs=1, finish=False, prune=False)
    assert all(isinstance(trial.values["model.hidden_size"], int) for trial in result.trials)
    rates = [trial.values["optimisation.learning_rate"] for trial in result.trials]
    assert all(1e-5 <= rate <= 0.1 for rate in rates) and len(set(rates)) == 16
    # Ten at random, then proposals; one epoch learns the more the larger the rate, over four decades. Were the six
    # random, all would be in the upper half with probability 1/64.
    assert min(rates[10:]) > 1e-3


def test_hopeless_trials_are_pruned(texts: Texts, tmp_path: Path) -> None:
    space = {"optimisation.learning_rate": (0.02, 0.03, 0.04, 1e-7)}
    result = search(_config(texts), space, tmp_path / "s", trials=4, trial_epochs=4, finish=False)
    assert [(trial.state, trial.epochs) for trial in result.trials] == [("complete", 4)] * 3 + [("pruned", 2)]
    assert "pruned" in result.table().splitlines()[-1]
    (loaded,) = optuna.get_all_study_summaries(_journal(tmp_path / "s"))
    assert (loaded.n_trials, loaded.best_trial.value) == (4, result.best and result.best.valid_nats)
    unpruned = search(_config(texts), space, tmp_path / "t", trials=4, trial_epochs=4, finish=False, prune=False)
    assert {trial.state for trial in unpruned.trials} == {"complete"}


def _journal(folder: Path) -> optuna.storages.BaseStorage:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "optuna.journal")))


def test_refused_combinations_are_failed_trials_and_the_search_continues(texts: Texts, tmp_path: Path) -> None:
    config = dataclasses.replace(_config(texts), model=Model(hidden_size=4, cell="sigmoid"))
    space = {
        "noise.family": ("beta:native", "gaussian"),
        "noise.spread": (0.0, 0.4, 1.5),
        "noise.feedback": (True, False),
    }
    result = search(config, space, tmp_path / "s", trials=12, trial_epochs=1)
    for trial in result.trials:
        family, spread, feedback = trial.values.values()
        if spread == 0 and not feedback:
            expected = "have no effect"  # the configuration says so
        else:
            expected = "below 1" if spread > 1 and family == "beta:native" else None  # the noise does
        if expected is None:
            assert (trial.state, trial.message, trial.epochs) == ("complete", None, 1)
        else:
            assert trial.state == "failed" and trial.message is not None and expected in trial.message
    assert result.result is not None
    assert {trial["message"] for trial in _trials(tmp_path / "s")} == {trial.message for trial in result.trials}
    assert sum(line.startswith("failed, ") for line in result.table().splitlines()) == 2

    with pytest.raises(ValueError, match=r"no trial succeeded.*needs a mean inside"):
        search(_config(texts), {"noise.family": ("gamma:native",)}, tmp_path / "none", trials=1, trial_epochs=1)


def test_trials_that_diverge_have_failed(texts: Texts, tmp_path: Path) -> None:
    config = _config(texts, optimizer="SGD", clip=None)
    config = dataclasses.replace(config, model=Model(hidden_size=4, cell="identity"))
    space = {"optimisation.learning_rate": (1e8, 0.01)}
    result = search(config, space, tmp_path / "s", trials=2, trial_epochs=2)
    assert [trial.state for trial in result.trials] == ["failed", "complete"]
    assert "noisy, epoch 1/4" in (result.trials[0].message or "")
    assert result.result is not None and result.result.folder == tmp_path / "s" / "trial-1"


@pytest.mark.parametrize("storage", [None, pytest.param("sqlite:///{}/trials.db", marks=pytest.mark.slow)])
def test_a_search_stopped_in_a_trial_resumes_it(
    texts: Texts, tmp_path: Path, after_step: AfterStep, storage: str | None
) -> None:
    space = {"noise.spread": Range(0.1, 1.5), "noise.family": FAMILIES}
    options: dict[str, Any] = {"trials": 4, "trial_epochs": 3, "storage": storage and storage.format(tmp_path)}
    whole = search(_config(texts), space, tmp_path / "whole", **options)

    epoch = -(-len(texts[0].read_text().split()) * 7 // 6 // 40)
    for step in (epoch + 2, 4 * epoch + 3, 8 * epoch, 13 * epoch):  # in trials, and where the best is resumed
        after_step(step, lambda: signal.raise_signal(signal.SIGTERM))
    stopped = 0
    while True:
        try:
            broken = search(_config(texts), space, tmp_path / "broken", **options)
            break
        except KeyboardInterrupt as stop:
            stopped += 1
            assert stop.__notes__ == [f"resume with: noisin sweep --resume {tmp_path / 'broken'}"]
    assert stopped == 4
    assert _trials(tmp_path / "broken") == _trials(tmp_path / "whole")
    assert whole.result is not None and broken.result is not None and whole.best is not None
    _assert_same_run(broken.result.folder, whole.result.folder)


def test_the_folder_of_another_search_is_refused(texts: Texts, tmp_path: Path) -> None:
    config, space = _config(texts, epochs=1), {"noise.spread": (0.1, 0.8)}
    search(config, space, tmp_path / "s", trials=2, trial_epochs=1, finish=False)
    before = (tmp_path / "s" / "search.json").read_bytes()
    for change, message in (
        ({"space": {"noise.spread": (0.1, 0.9)}}, r"space noise.spread \[0.1, 0.9\] \(there: \[0.1, 0.8\]\)"),
        ({"config": _config(texts, epochs=2)}, r"optimisation epochs 2 \(there: 1\)"),
        ({"trials": 1}, r"trials 1 \(there: 2, which can only grow\)"),
        ({"trial_epochs": 2, "seed": 1}, r"trial epochs 2 \(there: 1\), seed 1 \(there: 0\); keep its settings"),
        ({"prune": False}, "prune False"),
    ):
        given: dict[str, Any] = {"config": config, "space": space, "trials": 2, "trial_epochs": 1} | change
        with pytest.raises(ValueError, match=message):
            search(folder=tmp_path / "s", **given)
    other = dataclasses.replace(
        config, noise=dataclasses.replace(config.noise, spread=0.3)
    )  # which every trial replaces
    search(other, space, tmp_path / "s", trials=2, trial_epochs=1, finish=False)
    texts[1].write_text("six five four\n" * 20)
    with pytest.raises(ValueError, match="data sha256"):
        search(config, space, tmp_path / "s", trials=2, trial_epochs=1)
    assert (tmp_path / "s" / "search.json").read_bytes() == before
    with pytest.raises(ValueError, match="not empty"):
        search(config, space, tmp_path, trials=2, trial_epochs=1)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "space is empty"),
        ({"noise.spred": (0.1,)}, "did you mean 'noise.spread'"),
        ({"data.name": ("ptb", "pydocs")}, "space: a name must be one of"),
        ({"noise.spread": ()}, "tuple of choices or a Range"),
        ({"noise.spread": [0.1]}, "tuple of choices or a Range"),
        ({"noise.spread": (0.1, 0.1)}, "a choice twice"),
        ({"noise.spread": (0.1, -0.1)}, "noise.spread cannot be -0.1: spread must be a number from 0"),
        ({"noise.spread": Range(-1.0, 0.1)}, "noise.spread cannot be -1.0"),
        ({"noise.family": ("gausian",)}, "did you mean 'gaussian'"),
        ({"noise.family": (("a", "b"),)}, "noise.family cannot be \\('a', 'b'\\)"),
        ({"model.cell": ("elman",)}, "model.cell cannot be 'elman'"),
        ({"model.cell": Range(0.0, 1.0)}, "model.cell cannot be 0.0: cell must be"),
        ({"model.hidden_size": Range(1.5, 3.0)}, "model.hidden_size cannot be 1.5: hidden size must be int"),
        ({"optimisation.schedule_factor": (1.5,)}, "schedule factor is for schedule 'divide'"),
    ],
)
def test_an_invalid_space_is_refused(tmp_path: Path, space: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(Config(), space, tmp_path / "s", trials=1, trial_epochs=1)
    assert not (tmp_path / "s").exists()


def test_a_space_may_combine_dependent_options(texts: Texts, tmp_path: Path) -> None:
    space = {"optimisation.schedule": ("divide",), "optimisation.schedule_factor": (1.5, None)}
    result = search(_config(texts, epochs=1), space, tmp_path / "s", trials=2, trial_epochs=1, finish=False)
    assert [trial.state for trial in result.trials] == ["complete"] * 2


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (0.0, float("inf")), (float("nan"), 1.0), ("a", "b")])
def test_a_range_has_two_ends_in_order(ends: Any) -> None:
    with pytest.raises(ValueError, match="range must be from"):
        Range(*ends)
    with pytest.raises(ValueError, match="positive"):
        Range(0.0, 1.0, log=True)


def test_without_optuna_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "optuna":
            raise ModuleNotFoundError("No module named 'optuna'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r'pip install "noisin_pyro\[sweep\]"'):
        search(Config(), {"noise.spread": (0.1,)}, tmp_path / "s", trials=1, trial_epochs=1)
    assert not (tmp_path / "s").exists()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_search_has_the_same_result_and_workers_share_its_trials(texts: Texts, tmp_path: Path) -> None:
    program = str(Path(__file__).with_name("searched.py"))
    done = run_or_fail([sys.executable, program, str(texts[0].parent), str(tmp_path)])
    assert done.returncode == 0, done.stderr + "".join(path.read_text() for path in tmp_path.glob("*.err"))
    whole, broken, shared = (_trials(tmp_path / name) for name in ("whole", "broken", "shared"))
    assert broken == whole and {"complete", "pruned"} <= {trial["state"] for trial in whole}
    (best,) = (path.parent for path in (tmp_path / "whole").glob("*/result.json"))
    _assert_same_run(tmp_path / "broken" / best.name, best)

    assert [trial["number"] for trial in shared] == list(range(len(whole)))
    assert not {"running", "failed"} & {trial["state"] for trial in shared}
    assert len(list((tmp_path / "shared").glob("*/result.json"))) == 1


def test_a_trial_of_another_worker_is_skipped(texts: Texts, tmp_path: Path, after_step: AfterStep) -> None:
    def again() -> SearchResult:
        return search(_config(texts), {"noise.spread": (0.1, 0.8, 1.5)}, tmp_path / "s", trials=3, trial_epochs=2)

    after_step(1, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(KeyboardInterrupt):
        again()
    with FileLock(tmp_path / "s" / ".trial-0.lock"):
        result = again()
        assert [trial.state for trial in result.trials] == ["running", "complete", "complete"]
        assert result.result is None and not list(tmp_path.glob("s/*/result.json"))
        assert [line.split()[0] for line in result.table().splitlines()[1:]][-1] == "0"
    result = again()
    assert [trial.state for trial in result.trials] == ["complete"] * 3
    assert result.result is not None and result.best is not None
