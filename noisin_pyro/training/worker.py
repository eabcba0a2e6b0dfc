"""One worker's part of a search: it takes a trial that nobody has, trains it, and tells what came of it."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from noisin_pyro._files import exclusive_lock
from noisin_pyro.training import study
from noisin_pyro.training.config import Config
from noisin_pyro.training.found import Found, NoneSucceeded, Trial
from noisin_pyro.training.loop import AfterEpoch, StopTraining
from noisin_pyro.training.options import Run
from noisin_pyro.training.result import Measure
from noisin_pyro.training.run import train
from noisin_pyro.training.rundir import metrics_log
from noisin_pyro.training.rundir.layout import BEFORE, LAST
from noisin_pyro.training.rundir.train_state import TrainState
from noisin_pyro.training.space import Space, chosen, combinations

_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


@dataclass(frozen=True)
class Worker:
    """Of the search in ``folder``; arguments as :func:`~noisin_pyro.training.search`.

    Args:
        optuna, study: Optuna, and its record of the trials, which the workers share.
        settings: of the search as a whole, for ``search.json``.
    """

    optuna: Any
    study: Any
    config: Config
    space: Space
    folder: Path
    trials: int
    trial_epochs: int
    seed: int
    settings: dict[str, Any]
    measure: Measure
    after_epoch: AfterEpoch

    def done(self, finish: bool) -> Found:
        """All trials that others leave, and the best one to its end."""
        while (claim := self._next()) is not None:
            number, held = claim
            with held:
                self._try(number)
        found = self.found()
        if any(trial.state == "running" for trial in found.trials):
            tqdm.write("the last trials are other workers'; the last of these trains the best", file=sys.stderr)
            return found
        best = found.best
        if best is None:
            raise NoneSucceeded(f"no trial succeeded; the first: {found.trials[0].message}")
        if not finish or (held := self._claimed(best.number)) is None:  # another is finishing it
            return found
        with held:
            tqdm.write(f"trial {best.number} is the best, and goes on", file=sys.stderr)
            result = train(Config(run=Run(resume=self._place(best.number))), self.after_epoch)
            self._lock(best.number).unlink(missing_ok=True)
        return dataclasses.replace(found, result=result)

    def found(self) -> Found:
        """What is known now."""
        return Found(self.folder, [_trial(each) for each in self.study.trials], self.measure)

    def _next(self) -> tuple[int, ExitStack] | None:
        """The next trial, held from others: one that was left by a worker that has died, or a new one."""
        with exclusive_lock(self.folder, wait=True):
            known = self.study.trials
            for trial in known:
                if not trial.state.is_finished() and (held := self._claimed(trial.number)) is not None:
                    return trial.number, held
            every = combinations(self.space)
            if len(known) >= (self.trials if every is None else min(self.trials, len(every))):
                return None
            self.study.add_trial(
                self.optuna.trial.create_trial(
                    state=self.optuna.trial.TrialState.RUNNING,
                    params=study.proposed(self.optuna, self.space, known, self.trials, self.seed),
                    distributions=study.distributions(self.optuna, self.space),
                )
            )
            held = self._claimed(len(known))
            assert held is not None
            self.found().write(self.settings)
            return len(known), held

    def _try(self, number: int) -> None:
        """Train a trial for its epochs, from the start or from where it was."""
        frozen = self.study.trials[number]
        trial, where = self.optuna.trial.Trial(self.study, frozen._trial_id), self._place(number)
        self.after_epoch([])  # before there is any
        told = ", ".join(f"{name} {value}" for name, value in frozen.params.items())
        tqdm.write(f"trial {number}: {told}", file=sys.stderr)
        states, rows = self.optuna.trial.TrialState, []
        state, message, done = states.COMPLETE, None, False
        begun = any((where / name).exists() for name in (LAST, BEFORE))
        if not begun and where.exists():
            with exclusive_lock(where):
                for path in where.iterdir():  # killed before there was anything to go on from
                    path.unlink()
        try:
            config = chosen(self.config, frozen.params)

            def after_epoch(so_far: list[metrics_log.Row]) -> None:
                nonlocal state, done
                rows[:] = so_far
                for row in rows[len(self.study.trials[number].intermediate_values) :]:
                    trial.report(row["valid_nats"], int(row["epoch"]))
                done = len(rows) >= self.trial_epochs or TrainState(rows).is_finished(config.optimisation)
                if not done and trial.should_prune():
                    state, done = states.PRUNED, True
                if done:
                    raise StopTraining
                self.after_epoch(rows)

            here = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=where))
            train(Config(run=Run(resume=where)) if begun else here, after_epoch)
        except StopTraining:
            if not done:  # to be gone on with
                raise
        except (FloatingPointError, torch.OutOfMemoryError) as error:
            state, message = states.FAIL, str(error)
        except ValueError as error:
            if begun:  # then it is not the combination that is refused
                raise
            state, message = states.FAIL, str(error)
        with exclusive_lock(self.folder, wait=True):
            trial.set_user_attr("seconds", sum(row["seconds"] for row in rows))
            trial.set_user_attr("message", message)
            reported = self.study.trials[number].intermediate_values.values()
            self.study.tell(number, min(reported) if state == states.COMPLETE else None, state=state)
            self.found().write(self.settings)
            self._lock(number).unlink()

    def _claimed(self, number: int) -> ExitStack | None:
        """The trial held from other workers; ``None`` where one that lives has it."""
        held = ExitStack()
        self._lock(number).touch()
        try:
            held.enter_context(exclusive_lock(self._lock(number)))
        except (ValueError, FileNotFoundError):  # it has it, or was done with it a moment ago
            return None
        return held

    def _place(self, number: int) -> Path:
        return self.folder / f"trial-{number}"

    def _lock(self, number: int) -> Path:
        # The run's folder is locked by its run; this tells whose turn it is before and after.
        return self.folder / f"trial-{number}.lock"


def _trial(frozen: Any) -> Trial:
    values = frozen.intermediate_values.values()
    return Trial(
        number=frozen.number,
        values=frozen.params,
        state=_STATES.get(frozen.state.name, "running"),
        epochs=len(values),
        valid_nats=min(values, default=None),
        seconds=frozen.user_attrs.get("seconds", 0.0),
        message=frozen.user_attrs.get("message"),
    )
