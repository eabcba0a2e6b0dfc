"""The bootstrap particle filter: an unbiased estimate of p(x_{1:T}), by the model's own steps."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.nn.module import pyro_method
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from noisin_pyro.data import Batch, Sequences, Stream
from noisin_pyro.inference.estimates import (
    Evaluation,
    by_step,
    effective_samples,
    in_reading_order,
    log_mean,
    readings,
    row_lengths,
    summary,
)
from noisin_pyro.inference.sites import sample_sites
from noisin_pyro.models import NoisyPath, SequenceModel, States, Steps, real_steps, underlying

LARGEST = 2**24
"""Numbers in the largest tensor of one step; as many sequences are filtered at once as keep below it."""


class Filtered(NamedTuple):
    """What a filter of R islands of K particles found along B sequences.

    Attributes:
        increments: log p̂(x_t | x_{<t}) of each island, ``(R, B, T)``, 0 beyond a sequence's length.
        effective_samples: before resampling, added up over islands and steps, ``(B,)``.
        resamplings: of all islands, ``(B,)``.
    """

    increments: Tensor
    effective_samples: Tensor
    resamplings: Tensor


def particle_filter(
    model: Callable[..., Any],
    data: Sequences | Stream,
    num_samples: int,
    islands: int,
    threshold: float,
    batch_size: int | None = None,
    log_probs: bool = False,
) -> Evaluation:
    """Score by ``islands`` independent filters that share ``num_samples`` particles equally.

    Each island's p̂(x) = Π_t Σ_k W_{t-1,k} p(x_t | z_{t,k}) is unbiased, and so is their mean, whose logarithm is the
    number; the islands' differences give its error.

    Raises:
        ValueError: a program without :class:`SequenceModel` at its ground, or random weights or γ.
    """
    program, conditions = _steppable(model)
    with contextlib.ExitStack() as given:
        for condition in (poutine.block(), *conditions):
            given.enter_context(condition)
        random = _is_random(program, next(iter(data.batches(batch_size))))
        islands, particles = (islands, num_samples // islands) if random else (1, 1)
        width = max(program.emission.output_size, program.rnn.cell.gates * program.rnn.hidden_size)
        at_once = max(1, LARGEST // (islands * particles * width))
        found, lengths = [], []
        for reading in readings(data, batch_size):
            rows = row_lengths(*reading)
            for start in range(0, len(rows), at_once):
                windows = [_rows(batch, slice(start, start + at_once)) for batch in reading]
                found.append(run(program, windows, islands, particles, threshold))
            lengths += rows.tolist()
    totals, variances = log_mean(torch.cat([each.increments.sum(-1) for each in found], 1))
    summed = summary("particle-filter", totals, torch.tensor(lengths), "exact", 0.0, 0)
    if random:
        effective = sum(float(each.effective_samples.sum()) for each in found)
        resamplings = sum(int(each.resamplings.sum()) for each in found)
        summed = replace(
            summed,
            kind="estimate",
            monte_carlo_error=math.sqrt(float(variances.sum())) / summed.num_steps,
            num_samples=num_samples,
            effective_samples=effective / summed.num_steps,
            resamplings=resamplings / (islands * len(lengths)),
        )
    if not log_probs:
        return summed
    rows = [row for each in found for row in by_step(log_mean(each.increments.cumsum(-1))[0])]
    return replace(summed, log_probs=in_reading_order([r[:n] for r, n in zip(rows, lengths, strict=True)], data))


@pyro_method  # one context for all steps, in which weights that are conditioned on are found by their names
def run(program: SequenceModel, windows: list[Batch], islands: int, particles: int, threshold: float) -> Filtered:
    """Filter B sequences by R islands of K particles each, which share nothing but the data.

    Args:
        windows: one after the other, of the same sequences.
        threshold: an island's particles are resampled, for each sequence alone, where their effective sample size falls
            below this share of them.
    """
    rows, all_particles = len(windows[0].targets), islands * particles
    uniform = -math.log(particles)
    log_w = torch.full((islands, particles, rows), uniform, dtype=torch.float64, device=windows[0].targets.device)
    total_ess, resamplings, increments, states = log_w.new_zeros(rows), log_w.new_zeros(rows), [], None
    for batch in windows:
        walk = program.rnn.steps(program.embed(batch.inputs))
        states = _spread_out(walk.start, all_particles) if states is None else states
        steps = batch.targets.shape[1]
        real = real_steps(row_lengths(batch).to(log_w.device), steps)
        for t in range(steps):
            z, states = walk.step(t, states, _draw(walk, all_particles))
            log_p = program.emission(z.unsqueeze(-2)).log_prob(batch.targets[:, t : t + 1])
            log_w = log_w + log_p.reshape(log_w.shape).double().where(real[:, t], 0.0)
            increment = log_w.logsumexp(1, keepdim=True)
            # where no particle can have made x_t, p̂ is 0 whatever follows
            log_w = (log_w - increment).where(increment > -math.inf, uniform)
            ess = effective_samples(log_w, 1)
            due = (ess < threshold * particles) & real[:, t]
            if bool(due.any()):
                states = _resample(states, _parents(log_w, due))
                log_w = log_w.where(~due.unsqueeze(1), uniform)
            increments.append(increment.squeeze(1))
            total_ess += (ess * real[:, t]).sum(0)
            resamplings += due.sum(0)
    return Filtered(torch.stack(increments, -1), total_ess, resamplings)


def _rows(batch: Batch, part: slice) -> Batch:
    lengths = None if batch.lengths is None else batch.lengths[part]
    return replace(batch, inputs=batch.inputs[part], targets=batch.targets[part], lengths=lengths)


def _draw(walk: Steps, particles: int) -> Callable[[int, Tensor], Tensor]:
    """z_{l,t} of every particle from the model's own noise; the means of the inputs' are still the same for all."""
    return lambda layer, mean: walk.law(layer, mean.expand(particles, *mean.shape[-2:]))()


def _spread_out(start: States, particles: int) -> States:
    """The states before the first step, once for each particle: ``(P, B, H)``."""
    z, c = (tuple(s if s is None else s.expand(particles, *s.shape[-2:]) for s in each) for each in start)
    return States(z, c)  # type: ignore[arg-type]


def _parents(log_w: Tensor, due: Tensor) -> Tensor:
    """Systematic resampling of each island and sequence that is due, from ``(R, K, B)``: whose place each particle
    takes; all others keep their own."""
    particles = log_w.shape[1]
    places = torch.arange(particles, device=log_w.device)
    cumulated = log_w.exp().cumsum(1).mT.contiguous()  # (R, B, K)
    points = (places + torch.rand_like(cumulated[..., :1])) / particles * cumulated[..., -1:]
    drawn = torch.searchsorted(cumulated, points, right=True).clamp(max=particles - 1).mT
    return drawn.where(due.unsqueeze(1), places[:, None])


def _resample(states: States, parents: Tensor) -> States:
    """The states of the parents: every layer's z and memory go with the particle."""
    islands, particles, rows = parents.shape
    island = torch.arange(islands, device=parents.device)[:, None, None]
    index = ((island * particles + parents) * rows + torch.arange(rows, device=parents.device)).flatten()
    z, c = (
        tuple(s if s is None else s.reshape(len(index), -1).index_select(0, index).view(s.shape) for s in each)
        for each in states
    )
    return States(z, c)  # type: ignore[arg-type]


def _steppable(model: Callable[..., Any]) -> tuple[SequenceModel, list[Any]]:
    """The model whose steps the filter walks, and what is conditioned on."""
    program, conditions = underlying(model)
    if isinstance(program, SequenceModel):
        return program, conditions
    raise ValueError(
        f"method='particle-filter' walks a SequenceModel step by step, got {type(program).__name__}; give the model "
        "itself, or its unroll or innovations (noise_off(model) has method='mean')"
    )


def _is_random(program: SequenceModel, batch: Batch) -> bool:
    """Whether a state is noisy; refuses what is random beside it, and states that are given."""
    program.rnn.dropout.refuse(
        "method='particle-filter' walks along the layers step by step, without masks",
        "method 'importance', 'ensemble' or 'mean'",
    )
    trace = poutine.trace(program).get_trace(batch.inputs, batch.targets, lengths=batch.lengths)
    noisy = False
    for site in sample_sites(prune_subsample_sites(trace)):
        is_state = isinstance(site["fn"], NoisyPath)
        noisy = noisy or is_state
        if is_state and site["is_observed"]:
            raise ValueError(f"method='particle-filter' draws the states, but {site['name']!r} is conditioned on")
        if not is_state and not site["is_observed"]:
            raise ValueError(
                f"method='particle-filter' is of one network, but {site['name']!r} is sampled; condition on it first, "
                f"as in pyro.condition(model, {{{site['name']!r}: ...}})"
            )
    return noisy
