"""The loop: gradient steps on the bound, validation without noise, the best model kept."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from noisin_pyro.data import Batch, Sequences, Stream
from noisin_pyro.inference import Evaluation, PriorAsGuide_ELBO, evaluate
from noisin_pyro.inference.evaluation.result import perplexity
from noisin_pyro.inference.guides import Guide
from noisin_pyro.models import SequenceModel
from noisin_pyro.training import checkpoint, log
from noisin_pyro.training.build import resolved
from noisin_pyro.training.config import Config
from noisin_pyro.training.distributed import averaging, here
from noisin_pyro.training.divergence import require_finite
from noisin_pyro.training.folder import BEST, LOG, read_best
from noisin_pyro.training.interrupts import Deferred, Interrupted
from noisin_pyro.training.keeper import Keeper
from noisin_pyro.training.optimizers import averaged, build_optimizer, no_weights
from noisin_pyro.training.options import Data
from noisin_pyro.training.progress import Pass, Progress
from noisin_pyro.training.schedules import kl_weight, rate, set_rate
from noisin_pyro.training.shares import Steps, scored
from noisin_pyro.training.stepper import Stepper, stepper

AfterEpoch = Callable[[list[log.Row]], None]


class Paused(Exception):
    """Raised by what is called after an epoch: the run is left there, with what it can go on from."""


def fit(
    model: SequenceModel,
    train: Steps,
    valid: Steps,
    config: Config,
    folder: Path,
    guide: Guide | None = None,
    label: str = "training",
    resume: bool = False,
    after_epoch: AfterEpoch = lambda rows: None,
) -> list[log.Row]:
    """Train ``model``, and ``guide`` with it, until ``config.optimisation`` says stop.

    Each epoch adds a row to ``log.csv`` in ``folder``; the model that is best in validation is kept in ``best.pt``, and
    what the run can go on from in ``last.pt`` (:class:`~noisin_pyro.training.keeper.Keeper`).
    A row has ``epoch``; ``train_nats`` (the loss, noise on, while the weights changed) and ``valid_nats`` (noise off;
    of a guide its bound, one draw a sequence), both nats per step, with their exponentials ``train_perplexity`` and
    ``valid_perplexity``; ``learning_rate``; ``gamma_1`` and so on, each layer's spread at its end; ``seconds`` of the
    epoch; ``tokens_per_second`` of the training in it. Averaged SGD trains the weights, and has its averages validated,
    kept and logged. Of several processes each takes its rows of every batch; the first writes.

    Args:
        resume: go on from the checkpoint in ``folder``, to the same numbers, bit for bit, as without a break.
        after_epoch: called with the rows so far once an epoch's checkpoint is written, and at once where ``resume``
            finds epochs done; in each of several processes, which must decide alike. It may raise :class:`Paused`.

    Returns:
        The rows of the log.

    Raises:
        Paused: ``after_epoch`` has; the run can be resumed.
        FloatingPointError: a loss that is not finite. What ``best.pt`` and ``last.pt`` hold is from before.
        Interrupted: Ctrl-C or SIGTERM, once the step is done and ``last.pt`` is written.
        ValueError: no checkpoint or no best model in ``folder`` that can be read, where there should be one.
    """
    how, batch_size, ranks = config.optimisation, config.data.batch_size, here()
    # Depth 1 is that of the model's plate. Left to be found by running the model, it would cost a resumed run draws.
    elbo = PriorAsGuide_ELBO(num_particles=how.particles, bound=how.bound, max_plate_nesting=1)
    bound = averaging(elbo(model, guide))
    decay = (how.weight_decay, no_weights(bound))
    optimizer = build_optimizer(how.optimizer, bound.parameters(), how.learning_rate, how.average_after, *decay)
    # A text has an order; separate sequences come in a new one each epoch.
    order = torch.Generator().manual_seed(config.run.seed) if isinstance(train, Sequences) else None
    measure = "perplexity" if isinstance(train, Stream) else "nats"
    progress = Progress()
    keeper = Keeper(
        folder, model, guide, optimizer, order, progress, config.run.checkpoint_steps, config.run.checkpoint_seconds
    )
    if resume:
        keeper.restore()
        if progress.rows:
            read_best(folder, model, guide)  # what the last test needs: better told now than after the training
        ranks.once(partial(log.rewrite, folder / LOG, progress.rows))
        where = f"epoch {progress.epoch}, {progress.under_way.batches} batches done"
        tqdm.write(f"{label:>13}, {'trained' if progress.finished(how) else f'going on: {where}'}", file=sys.stderr)
        if progress.rows:  # killed between a checkpoint and what is called after it
            after_epoch(progress.rows)

    taken = stepper(bound, optimizer, how.clip)
    taking = {"scan": "scan in bfloat16"} if model.rnn.matmul_precision == "bfloat16" else {}
    engines = ", ".join(taking.get(way, way) for way in model.rnn.backends(ranks.split(batch_size) * how.particles))
    tqdm.write(f"{label:>13}, layers computed by: {engines}", file=sys.stderr)
    with Deferred().within() as interrupt:

        def keep(due: bool) -> None:
            # Clocks and signals are of any process. What comes from here on, while a checkpoint is written, waits for
            # the next step.
            due_now, asked = ranks.most(due, interrupt.asked or 0)
            if due_now or asked:
                keeper.save()
            if asked:
                raise Interrupted(int(asked))

        def after_step() -> None:
            keep(keeper.due())

        while not progress.finished(how):
            epoch, done = progress.epoch, progress.under_way
            title = f"{label}, epoch {epoch}/{how.epochs}"
            progress.order = None if order is None else order.get_state()
            bound.elbo.kl_weight = kl_weight(config.inference.kl_annealing, epoch)
            set_rate(optimizer, rate(how.schedule, how.learning_rate, progress.valid_nats, how.schedule_factor))
            with tqdm(
                total=train.num_steps, initial=done.steps, desc=title,
                unit=" tokens", unit_scale=True, leave=False, disable=None,
            ) as bar:  # fmt: skip
                train_nats = train_epoch(taken, train.batches(batch_size, order), bar, title, done, after_step)
            trained = time.perf_counter()
            with averaged(optimizer):
                valid_nats = validated(model, guide, valid, config.data).nats_per_step
                require_finite(valid_nats, model, f"{title}, validation")
                better = valid_nats < progress.best_nats
                if better:
                    states = {name: module.state_dict() for name, module in keeper.trained.items()}
                    best = {**states, "epoch": epoch, "valid_nats": valid_nats}
                    ranks.once(partial(checkpoint.save, folder / BEST, best))
                spreads = model.rnn.spreads()
            row = {
                "epoch": epoch,
                "train_nats": train_nats,
                "train_perplexity": perplexity(train_nats),
                "valid_nats": valid_nats,
                "valid_perplexity": perplexity(valid_nats),
                "learning_rate": optimizer.param_groups[0]["lr"],
                **spreads,
                "seconds": done.seconds + time.perf_counter() - trained,
                "tokens_per_second": train.num_steps / done.seconds,
            }
            row = ranks.gathered(row)[0]  # one clock, or some would stop before the others
            ranks.once(partial(log.append, folder / LOG, row))
            progress.close_epoch(row)
            progress.order = None if order is None else order.get_state()
            _tell(label, row, better, measure)
            keep(True)
            after_epoch(progress.rows)
    return progress.rows


def validated(model: SequenceModel, guide: Guide | None, valid: Steps, data: Data) -> Evaluation:
    """What a run is steered by: the network with its noise off, or the bound of its guide, one draw a sequence."""
    batch_size = rows_at_once(valid, data)
    if guide is None:
        return scored(partial(evaluate, model, method="mean", batch_size=batch_size), valid)
    options = {"guide": guide, "num_samples": 1, "batch_size": batch_size}
    return scored(partial(evaluate, model, method="importance", **options), valid)


def rows_at_once(held_out: Steps, data: Data) -> int | None:
    """Sequences that this process scores in one call; ``None`` for a text, which has its own columns."""
    if isinstance(held_out, Stream):
        return None
    size = resolved(data).eval_batch_size
    assert size is not None
    return math.ceil(size / here().size)


def train_epoch(
    steps: Stepper,
    batches: Iterable[Batch],
    bar: tqdm | None = None,
    title: str = "training",
    done: Pass | None = None,
    after_step: Callable[[], None] = lambda: None,
) -> float:
    """One pass: a gradient step a batch, the state carried on where the batch continues the one before.

    The loss is the negative bound summed over the batch divided by its number of steps: nats per step, whatever the
    batch's size, and nothing else. Of several processes each sums over its rows, and divides by the steps of all.

    Args:
        steps: what takes them, ``stepper(bound, optimizer, clip)``.
        batches: those of the whole pass.
        bar: shows how far it is.
        title: what an error calls this pass.
        done: what the pass has done already, brought up to date as they are read; default: nothing.
        after_step: called when steps have been read, which is after each, or on a GPU after some.

    Returns:
        The loss of the whole pass in nats per step.

    Raises:
        FloatingPointError: a loss that is not finite, before it reaches the weights.
    """
    done = Pass() if done is None else done
    steps.title, steps.state = title, done.state
    began = time.perf_counter()
    for number, batch, is_last in _numbered(itertools.islice(batches, done.batches, None), done.batches + 1):
        steps.take(batch, number)
        if steps.batches < steps.every and not is_last:
            continue
        read = steps.read()
        done.add(*read, time.perf_counter() - began)
        if bar is not None:
            shown = f", perplexity {perplexity(done.nats_per_step):.1f}" if batch.carried else ""
            bar.set_postfix_str(f"{done.nats_per_step:.3f} nats{shown}", refresh=False)
            bar.update(read.steps)
        after_step()
        began = time.perf_counter()
    return done.nats_per_step


def _numbered(batches: Iterable[Batch], start: int) -> Iterator[tuple[int, Batch, bool]]:
    """Each batch with its number, and whether it is the last."""
    ahead = iter(batches)
    batch = next(ahead, None)
    for number in itertools.count(start):
        if batch is None:
            return
        following = next(ahead, None)
        yield number, batch, following is None
        batch = following


def _tell(label: str, row: log.Row, better: bool, measure: str) -> None:
    spreads = " ".join(f"{value:.3f}" for column, value in row.items() if column.startswith("gamma_"))
    tqdm.write(
        f"{label:>13}, epoch {row['epoch']:>3.0f}: {measure} in training {row[f'train_{measure}']:7.2f}, "
        f"in validation {row[f'valid_{measure}']:7.2f}{'*' if better else ' '}"
        f"{row['seconds']:6.1f} s {row['tokens_per_second']:9,.0f} tokens/s"
        + (f"  spread {spreads}" if spreads else ""),
        file=sys.stderr,
    )
