"""The loop: gradient steps on the bound, validation without noise, the best model kept."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import torch
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from noisin_pyro.data import Batch, Sequences, Stream
from noisin_pyro.inference import Bound, PriorAsGuide_ELBO, evaluate
from noisin_pyro.models import SequenceModel
from noisin_pyro.training import checkpoint, log
from noisin_pyro.training.config import Config
from noisin_pyro.training.folder import BEST, LOG
from noisin_pyro.training.optimizers import averaged, build_optimizer
from noisin_pyro.training.schedules import DIVISOR, rate, set_rate

Steps = Sequences | Stream


def fit(
    model: SequenceModel, train: Steps, valid: Steps, config: Config, folder: Path, label: str = "training"
) -> list[log.Row]:
    """Train ``model`` until ``config.optimisation`` says stop.

    Each epoch adds a row to ``log.csv`` in ``folder``; the model that is best in validation is kept in ``best.pt``.
    A row has ``epoch``; ``train_nats`` (the bound, noise on, while the weights changed) and ``valid_nats`` (noise off),
    both nats per step, with their exponentials ``train_perplexity`` and ``valid_perplexity``; ``learning_rate``;
    ``gamma_1`` and so on, each layer's spread at its end; ``seconds`` of the epoch; ``tokens_per_second`` of the
    training in it.

    Returns:
        The rows of the log.

    Raises:
        FloatingPointError: a loss that is not finite. What ``best.pt`` holds is from before.
    """
    how = config.optimisation
    bound = PriorAsGuide_ELBO(num_particles=how.particles, bound=how.bound)(model)
    optimizer = build_optimizer(how.optimizer, bound.parameters(), how.learning_rate, how.average_after)
    # A text has an order; separate sequences come in a new one each epoch.
    order = torch.Generator().manual_seed(config.run.seed) if isinstance(train, Sequences) else None
    batch_size, measure = config.data.batch_size, "perplexity" if isinstance(train, Stream) else "nats"
    rows: list[log.Row] = []
    best_nats, best_epoch = math.inf, 0

    for epoch in range(1, how.epochs + 1):
        start = time.perf_counter()
        title = f"{label}, epoch {epoch}/{how.epochs}"
        valid_before = [row["valid_nats"] for row in rows]
        set_rate(optimizer, rate(how.schedule, how.learning_rate, valid_before, how.schedule_factor or DIVISOR))
        with tqdm(total=train.num_steps, desc=title, unit=" tokens", unit_scale=True, leave=False, disable=None) as bar:
            train_nats = train_epoch(bound, train.batches(batch_size, order), optimizer, how.clip, bar, title)
        trained = time.perf_counter()
        with averaged(optimizer):
            valid_nats = evaluate(model, valid, method="mean", batch_size=batch_size).nats_per_step
            _require_finite(valid_nats, model, f"{title}, validation")
            better = valid_nats < best_nats
            if better:
                best_nats, best_epoch = valid_nats, epoch
                checkpoint.save(folder / BEST, {"model": model.state_dict(), "epoch": epoch, "valid_nats": valid_nats})
            spreads = model.rnn.spreads()
        row = {
            "epoch": epoch,
            "train_nats": train_nats,
            "train_perplexity": perplexity(train_nats),
            "valid_nats": valid_nats,
            "valid_perplexity": perplexity(valid_nats),
            "learning_rate": optimizer.param_groups[0]["lr"],
            **spreads,
            "seconds": time.perf_counter() - start,
            "tokens_per_second": train.num_steps / (trained - start),
        }
        rows.append(row)
        log.append(folder / LOG, row)
        _tell(label, row, better, measure)
        if how.patience is not None and epoch - best_epoch >= how.patience:
            break
    return rows


def train_epoch(
    bound: Bound,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    clip: float | None = None,
    bar: tqdm | None = None,
    title: str = "training",
) -> float:
    """One pass: a gradient step a batch, the state carried on where the batch continues the one before.

    The loss is the negative bound summed over the batch divided by its number of steps: nats per step, whatever the
    batch's size, and nothing else.

    Args:
        bound: ``PriorAsGuide_ELBO(...)(model)``.
        clip: largest norm of the whole gradient; ``None`` leaves it as it is.
        bar: shows how far it is.
        title: what an error calls this pass.

    Returns:
        The loss of the whole pass in nats per step.

    Raises:
        FloatingPointError: a loss that is not finite, before it reaches the weights.
    """
    nats, steps, state = 0.0, 0, None
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, batch in enumerate(batches, start=1):
        loss = bound(batch.inputs, batch.targets, state=state if batch.carried else None, lengths=batch.lengths)
        batch_nats, batch_steps = loss.item(), batch.num_steps
        _require_finite(batch_nats, cast(SequenceModel, bound.model), f"{title}, step {index}")
        optimizer.zero_grad()
        (loss / batch_steps).backward()
        if clip is not None:
            clip_grad_norm_(parameters, clip)
        optimizer.step()
        state = bound.returned.state
        nats, steps = nats + batch_nats, steps + batch_steps
        if bar is not None:
            shown = f", perplexity {perplexity(nats / steps):.1f}" if batch.carried else ""
            bar.set_postfix_str(f"{nats / steps:.3f} nats{shown}", refresh=False)
            bar.update(batch_steps)
    return nats / steps


def perplexity(nats: float) -> float:
    """exp(nats), infinite where a float ends."""
    return math.exp(nats) if nats < 709 else math.inf


def _require_finite(nats: float, model: SequenceModel, where: str) -> None:
    if not math.isfinite(nats):
        spreads = ", ".join(f"{layer} = {value:.4g}" for layer, value in model.rnn.spreads().items())
        raise FloatingPointError(
            f"{where}: the loss is {nats} (spread of each layer: {spreads}); take a smaller learning rate or spread, "
            "or clip the gradient at a smaller norm"
        )


def _tell(label: str, row: log.Row, better: bool, measure: str) -> None:
    spreads = " ".join(f"{value:.3f}" for column, value in row.items() if column.startswith("gamma_"))
    tqdm.write(
        f"{label:>13}, epoch {row['epoch']:>3.0f}: {measure} in training {row[f'train_{measure}']:7.2f}, "
        f"in validation {row[f'valid_{measure}']:7.2f}{'*' if better else ' '}"
        f"{row['seconds']:6.1f} s {row['tokens_per_second']:9,.0f} tokens/s"
        + (f"  spread {spreads}" if spreads else ""),
        file=sys.stderr,
    )
