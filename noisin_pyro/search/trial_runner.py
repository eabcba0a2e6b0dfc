"""One worker of a search: it claims trials, trains them, and records their outcomes."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch
from filelock import AcquireReturnProxy, FileLock, Timeout
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from noisin_pyro._files import exclusive_lock
from noisin_pyro.search.optuna_study import add_trial, propose, running_trial
from noisin_pyro.search.result import SearchResult, Trial, best_trial
from noisin_pyro.search.search_space import Space, combinations
from noisin_pyro.training.config import Config, with_values
from noisin_pyro.training.loop import AfterEpoch, StopTraining
from noisin_pyro.training.options import Run
from noisin_pyro.training.result import Measure
from noisin_pyro.training.run import train
from noisin_pyro.training.rundir import metrics_log
from noisin_pyro.training.rundir.layout import CONFIG, remove_partial_files
from noisin_pyro.training.rundir.train_state import TrainState

logger = logging.getLogger("noisin_pyro")

_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


class TrialComplete(StopTraining):
    """The trial has reached its number of epochs."""


class TrialPruned(StopTraining):
    """The trial is pruned."""


@dataclass(frozen=True)
class TrialRunner:
    """A worker of the search in ``folder``; other arguments as in :func:`~noisin_pyro.search.search`.

    A running trial belongs to the process that holds its lock. ``Study.optimize`` would count an interrupted trial as
    failed and never resume one that a killed process left; Optuna's own retries need the heartbeats of a database.
    """

    study: optuna.Study
    storage: BaseStorage
    config: Config
    space: Space
    folder: Path
    trials: int
    trial_epochs: int
    seed: int
    measure: Measure
    after_epoch: AfterEpoch

    def run(self) -> SearchResult:
        """Run trials until all are finished or with other workers."""
        while (claim := self._claim_next()) is not None:
            number, lock = claim
            with lock:
                self._run_trial(number)
        return self.result()

    def finish(self, result: SearchResult) -> SearchResult:
        """Train the best trial to its end, unless another worker does.

        Raises:
            NoTrialSucceeded: there is no best one.
        """
        if any(trial.state == "running" for trial in result.trials):
            logger.info("other workers run the last trials; the last worker trains the best one to its end")
            return result
        best = best_trial(result.trials)
        if (lock := self._claim(best.number)) is None:
            return result
        with lock:
            logger.info("trial %d is the best; training it to its end", best.number)
            config = with_values(self.config, best.values)
            trained = train(_to_resume(config, self._run_folder(best.number)), self.after_epoch)
        return dataclasses.replace(result, result=trained)

    def result(self) -> SearchResult:
        """The trials so far."""
        return SearchResult(self.folder, [_to_trial(trial) for trial in self.study.trials], self.measure)

    def _claim_next(self) -> tuple[int, AcquireReturnProxy] | None:
        """A trial and its lock: one that a killed worker left, or a new one; ``None`` if there are no more."""
        with exclusive_lock(self.folder, wait=True):
            trials, grid = self.study.trials, combinations(self.space)
            candidates = [trial.number for trial in trials if not trial.state.is_finished()]
            if len(trials) < (self.trials if grid is None else min(self.trials, len(grid))):
                candidates.append(len(trials))
            for number in candidates:
                if (lock := self._claim(number)) is not None:
                    if number == len(trials):
                        add_trial(self.study, propose(self.space, trials, self.trials, self.seed), self.space)
                        self.result().write()
                    return number, lock
        return None

    def _claim(self, number: int) -> AcquireReturnProxy | None:
        """The lock of a trial, held for longer than that of its run; ``None`` if another worker has it."""
        try:
            return FileLock(self.folder / f".trial-{number}.lock").acquire(blocking=False)
        except Timeout:
            return None

    def _run_trial(self, number: int) -> None:
        """Train a trial, from the start or from its checkpoint, and record its outcome."""
        self.after_epoch([])  # may stop the search before the trial begins
        trial, where, message = running_trial(self.study, self.storage, number), self._run_folder(number), None
        values = ", ".join(f"{name} {trial.params[name]}" for name in self.space)
        logger.info("trial %d: %s", number, values)
        resume = (where / CONFIG).exists()
        state = TrialState.COMPLETE
        try:
            self._train(trial, where, resume)
        except TrialComplete:
            pass
        except TrialPruned:
            state = TrialState.PRUNED
        except (ValueError, FloatingPointError, torch.OutOfMemoryError) as error:
            if resume and isinstance(error, ValueError):  # not the values, which are checked before a run begins
                raise
            state, message = TrialState.FAIL, str(error)
        with exclusive_lock(self.folder, wait=True):
            trial.set_user_attr("message", message)
            losses = self.study.trials[number].intermediate_values.values()
            self.study.tell(number, min(losses) if state == TrialState.COMPLETE else None, state=state)
            self.result().write()

    def _train(self, trial: optuna.Trial, where: Path, resume: bool) -> None:
        """Train until :class:`TrialComplete` or :class:`TrialPruned` is raised."""
        config = with_values(self.config, trial.params)

        def after_epoch(rows: list[metrics_log.Row]) -> None:
            reported = len(self.study.trials[trial.number].intermediate_values)
            for row in rows[reported:]:
                trial.report(row["valid_nats"], int(row["epoch"]))
            trial.set_user_attr("seconds", sum(row["seconds"] for row in rows))
            if len(rows) >= self.trial_epochs or TrainState(rows).is_finished(config):
                raise TrialComplete
            if trial.should_prune():
                raise TrialPruned
            self.after_epoch(rows)

        if not resume:
            remove_partial_files(where)  # of a process that was killed while writing the configuration
        train(_to_resume(config, where) if resume else with_values(config, {"run.folder": where}), after_epoch)

    def _run_folder(self, number: int) -> Path:
        return self.folder / f"trial-{number}"


def _to_resume(config: Config, where: Path) -> Config:
    """The run in that folder, and the code that the search names, which may then be imported."""
    code = {"model.cell": config.model.cell, "model.emission": config.model.emission, "noise.noise": config.noise.noise}
    return with_values(Config(run=Run(resume=where)), code)


def _to_trial(trial: FrozenTrial) -> Trial:
    losses = trial.intermediate_values.values()
    return Trial(
        number=trial.number,
        values=trial.params,
        state=_STATES.get(trial.state.name, "running"),
        epochs=len(losses),
        valid_nats=min(losses, default=None),
        seconds=trial.user_attrs.get("seconds", 0.0),
        message=trial.user_attrs.get("message"),
    )
