"""The training loop: gradient steps on the bound, and validation after each epoch."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from noisin_pyro.data import Batch, Sequences, Stream
from noisin_pyro.inference import Bound, PriorAsGuide_ELBO
from noisin_pyro.inference.evaluation.result import perplexity
from noisin_pyro.inference.guides import Guide
from noisin_pyro.models import SequenceModel
from noisin_pyro.training.config import Config
from noisin_pyro.training.distributed import SINGLE, World, data_parallel
from noisin_pyro.training.optim import (
    averaged_weights,
    build_optimizer,
    kl_weight,
    scheduled_rate,
    set_rate,
    spared_from_decay,
)
from noisin_pyro.training.rundir import metrics_log
from noisin_pyro.training.rundir.checkpointer import Checkpointer, read_best
from noisin_pyro.training.rundir.layout import LOG
from noisin_pyro.training.rundir.train_state import EpochState, TrainState
from noisin_pyro.training.sharding import SequenceData
from noisin_pyro.training.signals import DeferredSignals, Interrupted
from noisin_pyro.training.train_step import TrainStep, make_train_step, require_finite
from noisin_pyro.training.validation import validate

AfterEpoch = Callable[[list[metrics_log.Row]], None]

logger = logging.getLogger("noisin_pyro")


class StopTraining(Exception):
    """Raised by an ``after_epoch`` callback to stop training there. The run can be resumed."""


def fit(
    model: SequenceModel,
    train: SequenceData,
    valid: SequenceData,
    config: Config,
    folder: Path,
    guide: Guide | None = None,
    label: str = "training",
    resume: bool = False,
    after_epoch: AfterEpoch = lambda rows: None,
    world: World = SINGLE,
) -> list[metrics_log.Row]:
    """Train ``model``, and ``guide`` with it, as ``config.optimization`` says.

    Each epoch adds a row to ``log.csv`` in ``folder``. ``best.pt`` holds the best model in validation, and ``last.pt``
    the state from which training resumes (:class:`~noisin_pyro.training.rundir.checkpointer.Checkpointer`).
    The columns of the log are ``epoch``; ``train_nats`` (the loss with noise, while the weights change) and
    ``valid_nats`` (noise off; with a guide, its bound with one draw per sequence; with the filtering bound, an
    estimate), both in nats per step, with their exponentials ``train_perplexity`` and ``valid_perplexity``;
    ``learning_rate``; ``gamma_1`` and so on, each layer's spread at the end of the epoch; ``seconds`` of the epoch;
    ``tokens_per_second`` of its training. With averaged SGD, the averaged weights are validated, saved and logged.

    Args:
        label: name of the network in log messages.
        resume: resume from the checkpoint in ``folder``. The results are bit for bit those without an interruption.
        after_epoch: called with the rows so far after an epoch's checkpoint is written, and when training resumes
            after at least one epoch; with several processes, in each of them, with the same outcome. It may raise
            :class:`StopTraining`.
        world: the processes that train together, each on its rows of every batch. Rank zero writes.

    Returns:
        The rows of the log.

    Raises:
        StopTraining: ``after_epoch`` has; the run can be resumed.
        FloatingPointError: a loss that is not finite. ``best.pt`` and ``last.pt`` are from before that step.
        Interrupted: Ctrl-C or SIGTERM, after the current step, with ``last.pt`` written.
        ValueError: a checkpoint or best model in ``folder`` that is missing or cannot be read.
    """
    loop = _Loop(model, guide, train, valid, config, folder, label, after_epoch, world)
    if resume:
        loop.restore()
    loop.run()
    return loop.state.rows


class _Loop:
    """The training loop and its objects. Arguments are those of :func:`fit`."""

    def __init__(
        self,
        model: SequenceModel,
        guide: Guide | None,
        train: SequenceData,
        valid: SequenceData,
        config: Config,
        folder: Path,
        label: str,
        after_epoch: AfterEpoch,
        world: World,
    ) -> None:
        self.model, self.guide, self.train, self.valid, self.config = model, guide, train, valid, config
        self.log, self.label, self.after_epoch, self.world = folder / LOG, label, after_epoch, world
        self.bound = data_parallel(_bound(model, guide, config), world)
        options = config.optimization
        self.optimizer = build_optimizer(
            options.optimizer,
            (parameter for parameter in self.bound.parameters() if parameter.requires_grad),
            options.learning_rate,
            options.average_after,
            options.weight_decay,
            spared_from_decay(self.bound),
        )
        # A text has an order; separate sequences come in a new one each epoch.
        self.order = torch.Generator().manual_seed(config.run.seed) if isinstance(train, Sequences) else None
        self.state = TrainState()
        every = config.run.checkpoint_steps, config.run.checkpoint_seconds
        self.checkpointer = Checkpointer(folder, model, guide, self.optimizer, self.state, self.order, world, *every)

    def restore(self) -> None:
        """Continue from the last checkpoint."""
        state = self.state
        self.checkpointer.restore()
        if state.rows:
            # The final test needs it: an error now is better than one after training.
            read_best(self.checkpointer.folder, self.model, self.guide)
        self.world.on_rank_zero(partial(metrics_log.rewrite, self.log, state.rows))
        finished = state.is_finished(self.config)
        position = f"resuming: epoch {state.epoch}, {state.under_way.batches} batches done"
        logger.info("%13s, %s", self.label, "trained" if finished else position)
        if state.rows:  # it was killed between a checkpoint and the call after it
            self.after_epoch(state.rows)

    def run(self) -> None:
        """Train and validate until training is finished."""
        self._log_backends()
        train_step = make_train_step(self.bound, self.optimizer, self.config.optimization.clip, self.world)
        with DeferredSignals().deferred() as signals:
            while not self.state.is_finished(self.config):
                train_nats = self._train_epoch(train_step, signals)
                row = self._validate_epoch(train_nats)
                self.state.end_epoch(row)
                self._record_order()
                self._checkpoint(True, signals)
                self.after_epoch(self.state.rows)

    def _train_epoch(self, train_step: TrainStep, signals: DeferredSignals) -> float:
        options, state = self.config.optimization, self.state
        self._record_order()
        self.bound.elbo.kl_weight = kl_weight(self.config.inference.kl_annealing, state.epoch)
        rate = scheduled_rate(options.schedule, options.learning_rate, state.valid_nats, options.schedule_factor)
        set_rate(self.optimizer, rate)
        batches = self.train.batches(self.config.data.batch_size, self.order)
        with tqdm(
            total=self.train.num_steps, initial=state.under_way.steps, desc=self._title,
            unit=f" {self._unit}", unit_scale=True, leave=False, disable=None,
        ) as bar:  # fmt: skip
            return train_epoch(
                train_step,
                batches,
                bar,
                self._title,
                state.under_way,
                lambda: self._checkpoint(self.checkpointer.is_due(), signals),
            )

    def _validate_epoch(self, train_nats: float) -> metrics_log.Row:
        """Validate, write ``best.pt`` if it is better than before, and add a row to the log."""
        start, epoch, done = time.perf_counter(), self.state.epoch, self.state.under_way
        with averaged_weights(self.optimizer):
            valid_nats = validate(self.model, self.guide, self.valid, self.config, self.world).nats_per_step
            require_finite(valid_nats, self.model, f"{self._title}, validation")
            is_best = valid_nats < self.state.best_nats
            if is_best:
                self.checkpointer.save_best(epoch, valid_nats)
            spreads = self.model.rnn.spreads()
        row = {
            "epoch": epoch,
            "train_nats": train_nats,
            "train_perplexity": perplexity(train_nats),
            "valid_nats": valid_nats,
            "valid_perplexity": perplexity(valid_nats),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            **spreads,
            "seconds": done.seconds + time.perf_counter() - start,
            "tokens_per_second": self.train.num_steps / done.seconds,
        }
        row = self.world.all_gather(row)[0]  # rank zero's clock, so that all stop after the same epoch
        self.world.on_rank_zero(partial(metrics_log.append, self.log, row))
        self._log_row(row, is_best)
        return row

    def _checkpoint(self, due: bool, signals: DeferredSignals) -> None:
        """Write ``last.pt`` if it is due in any process or a signal has come to any, and raise for the signal.

        A signal that comes while a checkpoint is written waits for the next step.
        """
        is_due, signum = self.world.all_max(due, signals.received or 0)
        if is_due or signum:
            self.checkpointer.save()
        if signum:
            raise Interrupted(int(signum))

    def _record_order(self) -> None:
        self.state.order = None if self.order is None else self.order.get_state()

    @property
    def _title(self) -> str:
        return f"{self.label}, epoch {self.state.epoch}/{self.config.optimization.epochs}"

    @property
    def _unit(self) -> str:
        return "tokens" if isinstance(self.train, Stream) else "steps"

    def _log_backends(self) -> None:
        names = {"scan": "scan in bfloat16"} if self.model.rnn.matmul_precision == "bfloat16" else {}
        rows = self.world.split(self.config.data.batch_size) * self.config.optimization.num_particles
        layers = ["loop"] if self.config.optimization.bound == "filtering" else self.model.rnn.backends(rows)
        backends = ", ".join(names.get(backend, backend) for backend in layers)
        logger.info("%13s, layers computed by: %s", self.label, backends)

    def _log_row(self, row: metrics_log.Row, is_best: bool) -> None:
        measure = "perplexity" if isinstance(self.train, Stream) else "nats"
        spreads = " ".join(f"{value:.3f}" for column, value in row.items() if column.startswith("gamma_"))
        logger.info(
            f"{self.label:>13}, epoch {row['epoch']:>3.0f}: {measure} in training {row[f'train_{measure}']:7.2f}, "
            f"in validation {row[f'valid_{measure}']:7.2f}{'*' if is_best else ' '}"
            f"{row['seconds']:6.1f} s {row['tokens_per_second']:9,.0f} {self._unit}/s"
            + (f"  spread {spreads}" if spreads else "")
        )


def _bound(model: SequenceModel, guide: Guide | None, config: Config) -> Bound:
    """The objective: equation (1) of the paper, or the bound of the guide."""
    options = config.optimization
    # The depth of the model's one plate. Pyro would find it by running the model, which changes a resumed run's draws.
    filtering: dict[str, Any] = {"threshold": options.threshold, "ancestor_term": options.ancestor_term}
    elbo = PriorAsGuide_ELBO(options.num_particles, bound=options.bound, max_plate_nesting=1, **filtering)
    return elbo(model, guide)


def train_epoch(
    train_step: TrainStep,
    batches: Iterable[Batch],
    bar: tqdm | None = None,
    title: str = "training",
    done: EpochState | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> float:
    """Train for one epoch: a gradient step for each batch, with the RNN state carried where a batch continues another.

    The loss is the negative bound, summed over the batch and divided by its number of time steps: nats per step,
    independent of the batch size. With several processes each sums over its rows, and divides by the steps of all.

    Args:
        train_step: :func:`~noisin_pyro.training.train_step.make_train_step` of the bound and the optimizer.
        batches: those of the whole epoch.
        bar: progress bar.
        title: name of the epoch in errors.
        done: the part of the epoch that is already done and is skipped; updated as losses are read. Default: nothing.
        after_step: called when losses are read: after each step or, by a CUDA graph, after some.

    Returns:
        The mean loss of the epoch in nats per step.

    Raises:
        FloatingPointError: a loss that is not finite, before it reaches the weights.
    """
    done = EpochState() if done is None else done
    train_step.title, train_step.state = title, done.state
    start = time.perf_counter()
    left = itertools.chain(itertools.islice(batches, done.batches, None), [None])
    for number, (batch, following) in enumerate(itertools.pairwise(left), start=done.batches + 1):
        assert batch is not None
        train_step(batch, number)
        if train_step.batches < train_step.read_every and following is not None:
            continue
        totals = train_step.read()
        done.add(*totals, time.perf_counter() - start)
        if bar is not None:
            shown = f", perplexity {perplexity(done.nats_per_step):.1f}" if batch.carried else ""
            bar.set_postfix_str(f"{done.nats_per_step:.3f} nats{shown}", refresh=False)
            bar.update(totals.steps)
        after_step()
        start = time.perf_counter()
    return done.nats_per_step
