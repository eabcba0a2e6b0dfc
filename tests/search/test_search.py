"""Searches of very short runs: their trials, and errors."""

import builtins
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import optuna
import pytest

from noisin_pyro.search import Range, search
from noisin_pyro.training import Config, Model, Noise, Run, train
from noisin_pyro.training.rundir import metrics_log

from .runs import FAMILIES, Texts, assert_same_run, read_trials, small_config


def test_choices_are_all_tried_once_and_the_best_is_the_run_without_a_search(texts: Texts, tmp_path: Path) -> None:
    space = {"noise.noise": FAMILIES, "noise.spread": (0.1, 0.8)}
    result = search(small_config(texts), space, tmp_path / "s", trials=9, trial_epochs=2, prune=False)
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

    noise = Noise(noise=best.values["noise.noise"], spread=best.values["noise.spread"])
    config = dataclasses.replace(small_config(texts), noise=noise)
    train(dataclasses.replace(config, run=Run(folder=tmp_path / "alone", twin=False, ensemble_samples=2)))
    assert_same_run(result.result.folder, tmp_path / "alone")
    assert result.table().splitlines()[1].split()[:4] == [str(best.number), noise.noise, f"{noise.spread:g}", "2"]


def test_no_combination_of_choices_is_tried_twice(texts: Texts, tmp_path: Path) -> None:
    space = {"noise.noise": FAMILIES, "noise.spread": (0.1, 0.8), "model.cell": ("tanh", "relu")}
    config = small_config(texts, epochs=1)
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


@pytest.mark.slow
def test_proposals_stay_in_their_ranges_and_use_earlier_trials(texts: Texts, tmp_path: Path) -> None:
    space = {"optimization.learning_rate": Range(1e-5, 0.1, log=True), "model.hidden_size": Range(2, 6)}
    result = search(small_config(texts), space, tmp_path / "s", trials=16, trial_epochs=1, finish=False, prune=False)
    assert all(isinstance(trial.values["model.hidden_size"], int) for trial in result.trials)
    rates = [trial.values["optimization.learning_rate"] for trial in result.trials]
    assert all(1e-5 <= rate <= 0.1 for rate in rates) and len(set(rates)) == 16
    # Ten at random, then proposals; one epoch learns the more the larger the rate, over four decades. Were the six
    # random, all would be in the upper half with probability 1/64.
    assert min(rates[10:]) > 1e-3


@pytest.mark.slow
def test_hopeless_trials_are_pruned(texts: Texts, tmp_path: Path) -> None:
    space = {"optimization.learning_rate": (0.02, 0.03, 0.04, 1e-7)}
    result = search(small_config(texts), space, tmp_path / "s", trials=4, trial_epochs=4, finish=False)
    assert [(trial.state, trial.epochs) for trial in result.trials] == [("complete", 4)] * 3 + [("pruned", 2)]
    assert "pruned" in result.table().splitlines()[-1]
    (loaded,) = optuna.get_all_study_summaries(_journal(tmp_path / "s"))
    assert (loaded.n_trials, loaded.best_trial.value) == (4, result.best and result.best.valid_nats)
    unpruned = search(small_config(texts), space, tmp_path / "t", trials=4, trial_epochs=4, finish=False, prune=False)
    assert {trial.state for trial in unpruned.trials} == {"complete"}


def _journal(folder: Path) -> optuna.storages.BaseStorage:
    return optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / "optuna.journal")))


def test_refused_combinations_are_failed_trials_and_the_search_continues(texts: Texts, tmp_path: Path) -> None:
    config = dataclasses.replace(small_config(texts), model=Model(hidden_size=4, cell="sigmoid"))
    space = {
        "noise.noise": ("beta:native", "gaussian"),
        "noise.spread": (0.0, 0.4, 1.5),
        "noise.feedback": (True, False),
    }
    result = search(config, space, tmp_path / "s", trials=12, trial_epochs=1)
    for trial in result.trials:
        family, spread, feedback = trial.values.values()
        if spread == 0 and not feedback:
            expected = "have no effect"  # refused by the configuration
        else:
            expected = "below 1" if spread > 1 and family == "beta:native" else None  # refused by the noise
        if expected is None:
            assert (trial.state, trial.message, trial.epochs) == ("complete", None, 1)
        else:
            assert trial.state == "failed" and trial.message is not None and expected in trial.message
    assert result.result is not None
    assert {trial["message"] for trial in read_trials(tmp_path / "s")} == {trial.message for trial in result.trials}
    assert sum(line.startswith("failed, ") for line in result.table().splitlines()) == 2

    impossible = {"noise.noise": ("gamma:native",)}
    with pytest.raises(ValueError, match=r"no trial succeeded.*needs a mean inside"):
        search(small_config(texts), impossible, tmp_path / "none", trials=1, trial_epochs=1)
    none = search(small_config(texts), impossible, tmp_path / "none", trials=1, trial_epochs=1, finish=False)
    assert none.best is None and [trial.state for trial in none.trials] == ["failed"]


def test_trials_that_diverge_have_failed(texts: Texts, tmp_path: Path) -> None:
    config = small_config(texts, optimizer="SGD", clip=None)
    config = dataclasses.replace(config, model=Model(hidden_size=4, cell="identity"))
    space = {"optimization.learning_rate": (1e8, 0.01)}
    result = search(config, space, tmp_path / "s", trials=2, trial_epochs=2)
    assert [trial.state for trial in result.trials] == ["failed", "complete"]
    assert "noisy, epoch 1/4" in (result.trials[0].message or "")
    assert result.result is not None and result.result.folder == tmp_path / "s" / "trial-1"


def test_the_folder_of_another_search_is_refused(texts: Texts, tmp_path: Path) -> None:
    config, space = small_config(texts, epochs=1), {"noise.spread": (0.1, 0.8)}
    search(config, space, tmp_path / "s", trials=2, trial_epochs=1, finish=False)
    before = (tmp_path / "s" / "search.json").read_bytes()
    for change, message in (
        ({"space": {"noise.spread": (0.1, 0.9)}}, r"space\.noise\.spread \[0.1, 0.9\] \(there: \[0.1, 0.8\]\)"),
        ({"config": small_config(texts, epochs=2)}, r"optimization\.epochs 2 \(there: 1\)"),
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


def test_without_optuna_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "optuna":
            raise ModuleNotFoundError("No module named 'optuna'")
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r'in the checkout .* pip install -e "\.\[sweep\]"'):
        search(Config(), {"noise.spread": (0.1,)}, tmp_path / "s", trials=1, trial_epochs=1)
    assert not (tmp_path / "s").exists()


def test_a_password_is_in_no_message(tmp_path: Path) -> None:
    space = {"noise.spread": (0.1,)}
    with pytest.raises(ValueError, match=r"storage 'nothing://me:\*\*\*@here' cannot be opened") as refusal:
        search(Config(), space, tmp_path / "s", trials=1, trial_epochs=1, storage="nothing://me:secret@here")
    assert "secret" not in str(refusal.value) and not (tmp_path / "s").exists()
