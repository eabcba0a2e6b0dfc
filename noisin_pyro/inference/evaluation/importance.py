"""Importance sampling: log (1/S) Σ_s w_s of whole sequences, from the prior or from a guide."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from noisin_pyro.data import Batch, Sequences, Stream
from noisin_pyro.inference.arviz import pareto_k
from noisin_pyro.inference.blocks import LargestTensor, block_size, blocks
from noisin_pyro.inference.elbo import PriorAsGuide_ELBO
from noisin_pyro.inference.evaluation.result import (
    Evaluation,
    by_step,
    jackknife_variance,
    joined_rows,
    leave_one_out,
    row_lengths,
    summary,
    summary_of_text,
    window_groups,
)
from noisin_pyro.inference.importance_weights import PARETO_K_THRESHOLD, effective_sample_size, log_mean_exp
from noisin_pyro.models import real_steps
from noisin_pyro.models.sequence_model import require_output


def importance(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    data: Sequences | Stream,
    num_samples: int,
    random: bool,
    batch_size: int | None = None,
    log_probs: bool = False,
) -> Evaluation:
    """Score by ``num_samples`` samples of each sequence.

    log w = log p(x, z | z_prior) − log q(z), where q is the law of the guide, and z_prior are the sites that the guide
    does not sample. ``random``: whether the model samples anything.
    """
    log_w, running, lengths, text = [], [], [], None
    for windows in window_groups(data, batch_size):
        row = row_lengths(*windows)
        weights, steps = _weigh(model, guide, windows, num_samples if random else 1, log_probs)
        log_w.append(weights[-1])
        lengths.append(row)
        running += [] if steps is None else [each[:length] for each, length in zip(steps, row.tolist(), strict=True)]
        text = _increments_by_token(weights, windows) if isinstance(data, Stream) else None
    all_w, all_lengths = torch.cat(log_w, 1), torch.cat(lengths)
    totals, variances = log_mean_exp(all_w), jackknife_variance(leave_one_out(all_w))
    error = math.sqrt(float(variances.sum())) if random else 0.0
    more: dict[str, Any] = {}
    if len(all_w) > 1:
        k = pareto_k(all_w.T.cpu().numpy())
        more = {
            "pareto_k": float(k.max()),
            "unreliable": float((k > PARETO_K_THRESHOLD).mean()),
            "effective_samples": float(effective_sample_size(all_w).mean()),
        }
    kind = "bound" if random else "exact"
    samples = num_samples if random else 0
    if text is None:
        result = summary("importance", totals, all_lengths, kind, error, samples, **more)
    else:
        result = summary_of_text("importance", text, kind, error, samples, **more)
    return replace(result, log_probs=joined_rows(running, data)) if log_probs else result


def _weigh(
    model: Callable[..., Any], guide: Callable[..., Any] | None, windows: list[Batch], num_samples: int, log_probs: bool
) -> tuple[Tensor, Tensor | None]:
    """log w after each of W windows, ``(W, S, B)``, and, if requested, the increment of the logarithm of the mean
    weight at each step, ``(B, T)``."""
    first, depth, samples_per_block = windows[0], 1, 1
    if num_samples > 1:  # a single sample needs no plate, so neither its dimension nor a block size
        with LargestTensor() as largest:
            depth = PriorAsGuide_ELBO().nesting(model, guide, first.inputs, first.targets, lengths=first.lengths)
        samples_per_block = block_size(largest.numel)
    log_w, total = [], torch.tensor(-math.inf)
    for block in blocks(num_samples, samples_per_block):
        elbo = PriorAsGuide_ELBO(block.stop - block.start, max_plate_nesting=depth)
        weights, steps = _weights_of_block(elbo, model, guide, windows, log_probs)
        log_w.append(weights)
        if steps is not None:
            total = torch.logaddexp(total.to(steps), steps.cumsum(-1).logsumexp(0))
    if not log_probs:
        return torch.cat(log_w, 1), None
    return torch.cat(log_w, 1), by_step(total - math.log(num_samples))


def _increments_by_token(log_w: Tensor, windows: list[Batch]) -> Tensor:
    """Contribution of each token of a text to the logarithm of its column's mean weight, ``(num_steps,)``.

    ``log_w`` ``(W, S, B)`` are the log-weights after each window; each increment is divided equally among the tokens of
    its window.
    """
    log_sums = log_w.logsumexp(1).cpu()  # log S, which makes them means, cancels in all differences but the first
    first = log_sums[:1] - math.log(log_w.shape[1])
    increments = torch.cat([first, log_sums.diff(dim=0)])
    lengths = torch.stack([row_lengths(window) for window in windows])
    return (increments / lengths.clamp(min=1)).T.flatten().repeat_interleave(lengths.T.flatten())


def _weights_of_block(
    elbo: PriorAsGuide_ELBO,
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    windows: list[Batch],
    log_probs: bool,
) -> tuple[Tensor, Tensor | None]:
    """log w of a block of samples after each window, ``(W, S, B)``, and log p(x_t | z_t), ``(S, B, T)``, with states
    carried from window to window."""
    weights, steps, state = [], [], None
    for batch in windows:
        rows = batch.targets.shape[0]
        with poutine.block():
            log_w, returned = elbo.log_weights(
                model, guide, batch.inputs, batch.targets, state=state, lengths=batch.lengths
            )
        if log_w.shape != (elbo.num_particles, rows):
            raise ValueError(
                f"model must open a plate of dimension -1 over its {rows} sequences, so that each has its own weights; "
                f"got weights of shape {tuple(log_w.shape)}"
            )
        out = require_output(*returned)
        weights.append(log_w.double())
        state = out.state
        if log_probs:
            log_prob = out.emission.log_prob(batch.targets).double()
            if batch.lengths is not None:
                log_prob = log_prob.where(real_steps(batch.lengths, log_prob.shape[-1]), 0.0)
            steps.append(log_prob.expand(elbo.num_particles, *log_prob.shape[-2:]))
    return torch.stack(weights).cumsum(0), torch.cat(steps, -1) if log_probs else None
