"""Scoring by the particle filter."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from noisin_pyro.data import Sequences, Series, Stream
from noisin_pyro.inference.blocks import blocks
from noisin_pyro.inference.evaluation.predictive import predict
from noisin_pyro.inference.evaluation.result import (
    Evaluation,
    by_step,
    jackknife_variance,
    leave_one_out,
    stack_rows,
    summary_of_steps,
    window_groups,
)
from noisin_pyro.inference.filtering.particle_filter import rows_in_block, run
from noisin_pyro.inference.filtering.proposals import check_proposal
from noisin_pyro.inference.filtering.support import (
    PARTICLE_FILTER,
    filterable,
    has_noisy_states,
    refuse_own_forward,
)
from noisin_pyro.inference.importance_weights import log_mean_exp
from noisin_pyro.inference.observed import steps_of


def particle_filter(
    model: Callable[..., Any],
    data: Sequences | Stream,
    num_samples: int,
    islands: int,
    threshold: float,
    batch_size: int | None = None,
    log_probs: bool = False,
    guide: Callable[..., Any] | None = None,
) -> Evaluation:
    """Score by ``islands`` independent particle filters, each with ``num_samples / islands`` particles.

    Each island's estimate p̂(x) = Π_t Σ_k W_{t-1,k} w_{t,k}, with w = p(x_t | z_t) p(noise) / q(noise), is unbiased, and
    so is the mean over islands, whose logarithm is the score. The Monte Carlo error is computed from the differences
    between islands. The history of a :class:`Series` weights the noise and is not scored: the score is that of the
    steps after it, log p̂(x) - log p̂(history).

    Raises:
        ValueError: a program that is not a :class:`SequenceModel`, that samples weights or γ, or that has noise and a
            ``forward`` of its own, or a guide that cannot draw the noise step by step.
    """
    program, conditions = filterable(model)
    proposal = check_proposal(guide, program)
    with contextlib.ExitStack() as handlers:
        for condition in (poutine.block(), *conditions):
            handlers.enter_context(condition)
        is_noisy = has_noisy_states(program, next(iter(data.batches(batch_size))))
    if not is_noisy:
        return predict("particle-filter", model, data, 0, "exact", batch_size, log_probs)
    refuse_own_forward(program, PARTICLE_FILTER)
    with contextlib.ExitStack() as handlers:
        for condition in (poutine.block(), *conditions):
            handlers.enter_context(condition)
        particles = num_samples // islands
        rows_per_block = rows_in_block(program, islands * particles, proposal)
        filtered, scored, weighted = [], [], []
        whole = data.with_history() if isinstance(data, Series) else data
        for part, windows in zip(window_groups(data, batch_size), window_groups(whole, batch_size), strict=True):
            for steps, batches in ((scored, part), (weighted, windows)):
                steps.append(torch.cat([steps_of(batch) for batch in batches], 1))
            for block in blocks(len(scored[-1]), rows_per_block):
                rows = [batch.rows(block) for batch in windows]
                filtered.append(run(program, rows, islands, particles, threshold, proposal))
    scored, weighted, increments = (
        stack_rows(part) for part in (scored, weighted, [each.increments for each in filtered])
    )
    steps, error = _given_history(increments, scored, weighted)
    resamplings = torch.cat([each.resamplings for each in filtered])
    result = summary_of_steps("particle-filter", data, steps, scored, "estimate", error, num_samples, log_probs)
    return replace(
        result,
        effective_samples=sum(float(each.effective_samples.sum()) for each in filtered) / int(weighted.sum()),
        resamplings=float(resamplings[weighted.any(1)].double().mean()) / islands,
    )


def _given_history(increments: Tensor, scored: Tensor, weighted: Tensor) -> tuple[Tensor, float]:
    """The log-probability of each step that is scored, ``(N, T)``, given the history, and the Monte Carlo error."""
    history = (weighted & ~scored).flip(1).cumsum(1).flip(1) > 0  # the steps up to its last
    # a sequence without a scored step has p(x) = 1, whatever the weights of its noise
    of_scored = increments.where(scored.any(1, keepdim=True), 0.0)
    left_out = leave_one_out(of_scored.sum(-1)) - leave_one_out(of_scored.where(history, 0.0).sum(-1))
    error = math.sqrt(float(jackknife_variance(left_out).sum()))
    steps = by_step(log_mean_exp(increments.cumsum(-1)))
    if steps.where(history, 0.0).isneginf().any():
        raise ValueError(
            "data: the model cannot produce the history of some series, given which the steps after it are scored; use "
            "an emission whose support has it, or more samples"
        )
    # where no target is scored, an increment is of the proposal alone: it is divided among the steps that are scored
    rest = steps.where(~scored & ~history, 0.0).sum(1, keepdim=True) / scored.sum(1, keepdim=True).clamp(min=1)
    return (steps + rest).where(scored, 0.0), error
