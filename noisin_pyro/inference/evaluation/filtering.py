"""Scoring by the particle filter."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from pyro import poutine

from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference.blocks import block_size, blocks
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
from noisin_pyro.inference.filtering.particle_filter import filterable, has_noisy_states, run
from noisin_pyro.inference.filtering.proposals import check_proposal
from noisin_pyro.inference.importance_weights import log_mean_exp


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
    between islands.

    Raises:
        ValueError: a program that is not a :class:`SequenceModel`, or that samples weights or γ, or a guide that cannot
            draw the noise step by step.
    """
    program, conditions = filterable(model)
    proposal = check_proposal(guide, program)
    with contextlib.ExitStack() as handlers:
        for condition in (poutine.block(), *conditions):
            handlers.enter_context(condition)
        random = has_noisy_states(program, next(iter(data.batches(batch_size))))
        islands, particles = (islands, num_samples // islands) if random else (1, 1)
        width = max(program.emission.output_size, program.rnn.cell.gates * program.rnn.hidden_size)
        width = width if proposal is None else max(width, proposal.width)
        rows_per_block = block_size(islands * particles * width)
        filtered, lengths = [], []
        for windows in window_groups(data, batch_size):
            rows = row_lengths(*windows)
            for block in blocks(len(rows), rows_per_block):
                part = [batch.rows(block) for batch in windows]
                filtered.append(run(program, part, islands, particles, threshold, proposal))
            lengths += rows.tolist()
    log_p = torch.cat([each.increments.sum(-1) for each in filtered], 1)
    rows = []
    if log_probs or isinstance(data, Stream):
        rows = [row for each in filtered for row in by_step(log_mean_exp(each.increments.cumsum(-1)))]
        rows = [row[:length] for row, length in zip(rows, lengths, strict=True)]
    if isinstance(data, Stream):
        result = summary_of_text("particle-filter", torch.cat(rows), "exact", 0.0, 0)
    else:
        result = summary("particle-filter", log_mean_exp(log_p), torch.tensor(lengths), "exact", 0.0, 0)
    if random:
        effective = sum(float(each.effective_samples.sum()) for each in filtered)
        resamplings = sum(int(each.resamplings.sum()) for each in filtered)
        variance = float(jackknife_variance(leave_one_out(log_p)).sum())
        result = replace(
            result,
            kind="estimate",
            monte_carlo_error=math.sqrt(variance) / result.num_steps,
            num_samples=num_samples,
            effective_samples=effective / result.num_steps,
            resamplings=resamplings / (islands * len(lengths)),
        )
    return replace(result, log_probs=joined_rows(rows, data)) if log_probs else result
