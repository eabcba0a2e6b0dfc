"""Searches that are interrupted, killed or shared end like an uninterrupted one."""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from noisin_pyro.search import Range, SearchResult, search
from noisin_pyro.training import Config, Noise, Run, StopTraining, train
from noisin_pyro.training.rundir import metrics_log

from ..hooks import AfterStep
from ..processes import run_or_fail
from .runs import FAMILIES, Texts, assert_same_run, read_trials, small_config


@pytest.mark.parametrize("epochs", [1, 4])
def test_a_run_paused_after_an_epoch_ends_as_one_without_a_break(texts: Texts, tmp_path: Path, epochs: int) -> None:
    def of(name: str) -> Config:
        config = dataclasses.replace(small_config(texts), noise=Noise(learn_spread=True))
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
    files = {"config.json", "data.json", "log.csv", "best.pt", "last.pt", *(["before.pt"] if epochs > 1 else [])}
    assert {path.name for path in (tmp_path / "broken").iterdir()} == files
    with pytest.raises(StopTraining):  # there already
        train(Config(run=Run(resume=tmp_path / "broken")), pause)
    assert len(metrics_log.read(tmp_path / "broken" / "log.csv")) == epochs
    train(Config(run=Run(resume=tmp_path / "broken")))
    assert_same_run(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("storage", [None, "sqlite:///{}/trials.db"])
def test_a_search_stopped_in_a_trial_resumes_it(
    texts: Texts, tmp_path: Path, after_step: AfterStep, storage: str | None
) -> None:
    space = {"noise.spread": Range(0.1, 1.5), "noise.noise": FAMILIES}
    options: dict[str, Any] = {"trials": 4, "trial_epochs": 3, "storage": storage and storage.format(tmp_path)}
    whole = search(small_config(texts), space, tmp_path / "whole", **options)

    epoch = -(-len(texts[0].read_text().split()) * 7 // 6 // 40)
    for step in (epoch + 2, 4 * epoch + 3, 8 * epoch, 13 * epoch):  # in trials, and where the best is resumed
        after_step(step, lambda: signal.raise_signal(signal.SIGTERM))
    stopped = 0
    while True:
        try:
            broken = search(small_config(texts), space, tmp_path / "broken", **options)
            break
        except KeyboardInterrupt as stop:
            stopped += 1
            assert stop.__notes__ == [f"resume with: noisin sweep --resume {tmp_path / 'broken'}"]
    assert stopped == 4
    assert read_trials(tmp_path / "broken") == read_trials(tmp_path / "whole")
    assert whole.result is not None and broken.result is not None and whole.best is not None
    assert_same_run(broken.result.folder, whole.result.folder)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_search_has_the_same_result_and_workers_share_its_trials(texts: Texts, tmp_path: Path) -> None:
    program = str(Path(__file__).with_name("searched.py"))
    done = run_or_fail([sys.executable, program, str(texts[0].parent), str(tmp_path)])
    assert done.returncode == 0, done.stderr + "".join(path.read_text() for path in tmp_path.glob("*.err"))
    whole, broken, shared = (read_trials(tmp_path / name) for name in ("whole", "broken", "shared"))
    assert broken == whole and {"complete", "pruned"} <= {trial["state"] for trial in whole}
    (best,) = (path.parent for path in (tmp_path / "whole").glob("*/result.json"))
    assert_same_run(tmp_path / "broken" / best.name, best)

    assert [trial["number"] for trial in shared] == list(range(len(whole)))
    assert not {"running", "failed"} & {trial["state"] for trial in shared}
    assert len(list((tmp_path / "shared").glob("*/result.json"))) == 1


def test_a_trial_of_another_worker_is_skipped(texts: Texts, tmp_path: Path, after_step: AfterStep) -> None:
    def again() -> SearchResult:
        return search(small_config(texts), {"noise.spread": (0.1, 0.8, 1.5)}, tmp_path / "s", trials=3, trial_epochs=2)

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


def test_a_worker_with_fewer_trials_keeps_the_larger_number(texts: Texts, tmp_path: Path) -> None:
    config, space = small_config(texts, epochs=1), {"noise.spread": (0.1, 0.8, 1.5)}

    def another_worker(rows: list[metrics_log.Row]) -> None:
        after_epoch.clear()
        search(config, space, tmp_path / "s", trials=3, trial_epochs=1, finish=False)

    after_epoch = [another_worker]
    result = search(
        config, space, tmp_path / "s", trials=2, trial_epochs=1, finish=False,
        after_epoch=lambda rows: after_epoch[0](rows) if after_epoch else None,
    )  # fmt: skip
    assert [trial.state for trial in result.trials] == ["complete"] * 3
    assert json.loads((tmp_path / "s" / "search.json").read_text())["trials"] == 3


def test_a_journal_that_ends_in_half_a_line_is_mended(texts: Texts, tmp_path: Path) -> None:
    config, space = small_config(texts, epochs=1), {"noise.spread": Range(0.1, 0.8)}
    first = search(config, space, tmp_path / "s", trials=1, trial_epochs=1, finish=False)
    with (tmp_path / "s" / "optuna.journal").open("ab") as journal:
        journal.write(b'{"op_code":4,"worker')  # by a process that was killed while writing
    for trials in (2, 3):
        more = search(config, space, tmp_path / "s", trials=trials, trial_epochs=1, finish=False)
        assert len(more.trials) == trials and more.trials[0] == first.trials[0]
