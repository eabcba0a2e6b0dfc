"""Importance sampling: log (1/S) Σ_s w_s of whole sequences, from the prior or from a guide."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from noisin_pyro._diagnostics import MAX_PARETO_K
from noisin_pyro.data import Batch, Sequences, Stream
from noisin_pyro.inference.arviz import pareto_k
from noisin_pyro.inference.blocks import LargestTensor, block_size, blocks
from noisin_pyro.inference.elbo import PriorAsGuide_ELBO
from noisin_pyro.inference.evaluation.result import (
    Evaluation,
    by_step,
    fingerprint,
    jackknife_variance,
    leave_one_out,
    stack_rows,
    summary,
    summary_of_text,
    window_groups,
)
from noisin_pyro.inference.importance_weights import effective_sample_size, log_mean_exp
from noisin_pyro.inference.observed import ObservedSites, observed_steps
from noisin_pyro.models.output import require_output


def importance(
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    data: Sequences | Stream,
    num_samples: int,
    batch_size: int | None = None,
    log_probs: bool = False,
) -> Evaluation:
    """Score by ``num_samples`` samples of each sequence.

    log w = log p(x, z | z_prior) − log q(z), where q is the law of the guide, and z_prior are the sites that the guide
    does not sample.
    """
    groups = [_weigh(model, guide, windows, num_samples, log_probs) for windows in window_groups(data, batch_size)]
    scored = stack_rows([torch.cat(group.scored, 1) for group in groups])
    lengths = scored.sum(1)
    log_w = torch.cat([group.log_w[-1] for group in groups], 1)
    log_w = log_w.where(lengths > 0, 0.0)  # a sequence without a scored step has p(x) = 1, whatever its noise
    totals, variances = log_mean_exp(log_w), jackknife_variance(leave_one_out(log_w))
    more: dict[str, Any] = {"fingerprint": fingerprint(data, scored)}
    own = log_w[:, lengths > 0]
    if num_samples > 1 and own.numel():
        k = pareto_k(own.T.cpu().numpy())
        more |= {
            "pareto_k": float(k.max()),
            "unreliable": float((k > MAX_PARETO_K).mean()),
            "effective_samples": float(effective_sample_size(own).mean()),
        }
    options = ("bound", math.sqrt(float(variances.sum())), num_samples)
    if isinstance(data, Stream):
        ((weights, _, parts),) = groups
        result = summary_of_text("importance", _increments_by_token(weights, parts), *options, **more)
    else:
        result = summary("importance", totals, lengths, *options, **more)
    if not log_probs:
        return result
    steps = stack_rows([group.steps for group in groups if group.steps is not None]).where(scored, 0.0)
    return replace(result, log_probs=steps[scored] if isinstance(data, Stream) else steps)


class _Weighed(NamedTuple):
    """The samples of B sequences over W windows.

    Attributes:
        log_w: log w after each window, ``(W, S, B)``.
        steps: if requested, the increment of the logarithm of the mean weight at each step, ``(B, T)``; else None.
        scored: the steps of each window that are scored, ``(B, T_w)``.
    """

    log_w: Tensor
    steps: Tensor | None
    scored: list[Tensor]


def _weigh(
    model: Callable[..., Any], guide: Callable[..., Any] | None, windows: list[Batch], num_samples: int, log_probs: bool
) -> _Weighed:
    first, depth, samples_per_block = windows[0], 1, 1
    if num_samples > 1:  # a single sample needs no plate, so neither its dimension nor a block size
        with LargestTensor() as largest:
            depth = PriorAsGuide_ELBO().nesting(model, guide, first.inputs, first.targets, **first.keywords)
        samples_per_block = block_size(largest.numel)
    log_w, scored, total = [], [], torch.tensor(-math.inf)
    for block in blocks(num_samples, samples_per_block):
        elbo = PriorAsGuide_ELBO(block.stop - block.start, max_plate_nesting=depth)
        weights, steps, scored = _weights_of_block(elbo, model, guide, windows, log_probs)
        log_w.append(weights)
        if steps is not None:
            total = torch.logaddexp(total.to(steps), steps.cumsum(-1).logsumexp(0))
    return _Weighed(torch.cat(log_w, 1), by_step(total - math.log(num_samples)) if log_probs else None, scored)


def _increments_by_token(log_w: Tensor, scored: list[Tensor]) -> Tensor:
    """Contribution of each token of a text to the logarithm of its column's mean weight, ``(num_steps,)``.

    ``log_w`` ``(W, S, B)`` are the log-weights after each window; each increment is divided equally among the scored
    tokens of its window. If there are none, it is divided among those of all windows.
    """
    log_sums = log_w.logsumexp(1).cpu()  # log S, which makes them means, cancels in all differences but the first
    first = log_sums[:1] - math.log(log_w.shape[1])
    increments = torch.cat([first, log_sums.diff(dim=0)])
    lengths = torch.stack([window.sum(1).cpu() for window in scored])
    rest = increments.where(lengths == 0, 0.0).sum(0) / lengths.sum(0).clamp(min=1)
    return (increments / lengths.clamp(min=1) + rest).T.flatten().repeat_interleave(lengths.T.flatten())


def _weights_of_block(
    elbo: PriorAsGuide_ELBO,
    model: Callable[..., Any],
    guide: Callable[..., Any] | None,
    windows: list[Batch],
    log_probs: bool,
) -> tuple[Tensor, Tensor | None, list[Tensor]]:
    """log w of a block of samples after each window, ``(W, S, B)``, log p(x_t | z_t), ``(S, B, T)``, and the steps of
    each window that are scored, with states carried from window to window."""
    weights, steps, scored, state = [], [], [], None
    for batch in windows:
        rows = batch.targets.shape[0]
        with poutine.block(), ObservedSites() as observed:
            log_w, returned = elbo.log_weights(model, guide, batch.inputs, batch.targets, state=state, **batch.keywords)
        if log_w.shape != (elbo.num_particles, rows):
            raise ValueError(
                f"model must open a plate of dimension -1 over its {rows} sequences, so that each has its own weights; "
                f"got weights of shape {tuple(log_w.shape)}"
            )
        out = require_output(*returned)
        weights.append(log_w.double())
        state = out.state
        scored.append(observed_steps(observed.sites, batch))
        if log_probs:
            log_prob = out.emission.log_prob(batch.targets).double().where(scored[-1], 0.0)
            steps.append(log_prob.expand(elbo.num_particles, *log_prob.shape[-2:]))
    return torch.stack(weights).cumsum(0), torch.cat(steps, -1) if log_probs else None, scored
