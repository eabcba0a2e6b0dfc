"""The bootstrap particle filter: an unbiased estimate of p(x_{1:T})."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pyro import poutine
from pyro.nn.module import pyro_method
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from noisin_pyro.data import Batch
from noisin_pyro.inference.filtering.resampling import select, systematic_ancestors
from noisin_pyro.inference.importance_weights import effective_sample_size
from noisin_pyro.inference.observed import steps_of
from noisin_pyro.inference.traces import all_sites
from noisin_pyro.models import Emission, NoisyPath, SequenceModel, States, StepwiseRNN, underlying


class Particles(NamedTuple):
    """R islands of K weighted particles for each of B sequences.

    Attributes:
        states: z and c of every layer, ``(R·K, B, H)`` each.
        log_w: log-weights in float64, normalized within each island, ``(R, K, B)``.
    """

    states: States
    log_w: Tensor


class FilterStep(NamedTuple):
    """The result of one step of the filter.

    Attributes:
        particles: the particles after the step, resampled where ``resampled`` is True.
        increment: log p̂(x_t | x_{<t}) of each island, ``(R, B)``; 0 in padding.
        effective_samples: effective sample size of each island before resampling, ``(R, B)``.
        resampled: which islands were resampled, ``(R, B)``.
    """

    particles: Particles
    increment: Tensor
    effective_samples: Tensor
    resampled: Tensor


class Filtered(NamedTuple):
    """The result of filtering B sequences by R islands of K particles.

    Attributes:
        increments: log p̂(x_t | x_{<t}) of each island, ``(R, B, T)``, 0 beyond a sequence's length.
        effective_samples: effective sample sizes before resampling, summed over islands and steps, ``(B,)``.
        resamplings: number of resamplings of all islands, ``(B,)``.
    """

    increments: Tensor
    effective_samples: Tensor
    resamplings: Tensor


@pyro_method  # one context for all steps, so that conditioned weights are found by their sites' names
def run(program: SequenceModel, windows: list[Batch], islands: int, particles: int, threshold: float) -> Filtered:
    """Filter B sequences by R independent islands of K particles each.

    Args:
        program: the model.
        windows: consecutive windows of the same sequences.
        islands: R.
        particles: K.
        threshold: an island's particles of a sequence are resampled if their effective sample size is below this
            fraction of K.
    """
    increments, current = [], None
    total_ess = torch.zeros(len(windows[0].targets), dtype=torch.float64, device=windows[0].targets.device)
    resamplings = torch.zeros_like(total_ess)
    for batch in windows:
        walk = program.rnn.stepwise(program.embed(batch.inputs))
        current = initial_particles(walk.start, islands, particles) if current is None else current
        scored = steps_of(batch)
        for t in range(batch.targets.shape[1]):
            x_t = batch.targets[:, t : t + 1]
            current, increment, ess, resampled = filter_step(
                walk, program.emission, t, current, x_t, scored[:, t], threshold
            )
            increments.append(increment)
            total_ess += (ess * scored[:, t]).sum(0)
            resamplings += resampled.sum(0)
    return Filtered(torch.stack(increments, -1), total_ess, resamplings)


def initial_particles(start: States, islands: int, particles: int) -> Particles:
    """R·K equally weighted copies of the states before the first step, ``(B, H)`` each."""
    like = start.z[0]
    z, c = (tuple(s if s is None else s.expand(islands * particles, *s.shape[-2:]) for s in each) for each in start)
    log_w = torch.full(
        (islands, particles, like.shape[-2]), -math.log(particles), dtype=torch.float64, device=like.device
    )
    return Particles(States(z, c), log_w)  # type: ignore[arg-type]


def filter_step(
    walk: StepwiseRNN, emission: Emission, t: int, particles: Particles, x_t: Tensor, scored: Tensor, threshold: float
) -> FilterStep:
    """Propagate the particles with the model's noise, weight them by p(x_t | z_t), and resample them if needed.

    Args:
        walk: the network, which steps along the inputs of the window.
        emission: p(x_t | z_t).
        t: index of the step in the window, from 0.
        particles: the particles after step t - 1.
        x_t: targets of the step, ``(B, 1)`` or ``(B, 1, D)``.
        scored: which sequences have a target at t, ``(B,)``; padding and missing targets do not change the weights.
        threshold: particles are resampled if their effective sample size is below this fraction of K.
    """
    states, log_w = particles
    num_particles, uniform = log_w.shape[1], -math.log(log_w.shape[1])
    z, states = walk.step(t, states, _sampler(walk, log_w.shape[0] * num_particles))
    log_p = emission(z.unsqueeze(-2)).log_prob(x_t)
    log_w = log_w + log_p.reshape(log_w.shape).double().where(scored, 0.0)
    increment = log_w.logsumexp(1, keepdim=True)
    # if no particle can produce x_t, p̂ is 0 from here on; equal weights keep the later steps finite
    log_w = (log_w - increment).where(increment > -math.inf, uniform)
    ess = effective_sample_size(log_w, 1)
    due = (ess < threshold * num_particles) & scored
    if bool(due.any()):
        states = select(states, systematic_ancestors(log_w, due))
        log_w = log_w.where(~due.unsqueeze(1), uniform)
    return FilterStep(Particles(states, log_w), increment.squeeze(1), ess, due)


def _sampler(walk: StepwiseRNN, particles: int) -> Callable[[int, Tensor], Tensor]:
    """A function that samples z_{l,t} of every particle. At the input layer all particles share the mean."""
    return lambda layer, mean: walk.law(layer, mean.expand(particles, *mean.shape[-2:]))()


def filterable(model: Callable[..., Any]) -> tuple[SequenceModel, list[Any]]:
    """The :class:`SequenceModel` under its views, and the handlers that condition its sites.

    Raises:
        ValueError: a program that is not a :class:`SequenceModel`, or one with its noise off.
    """
    program, conditions = underlying(model)
    if isinstance(program, SequenceModel):
        return program, conditions
    raise ValueError(
        f"method='particle-filter' needs a SequenceModel, got {type(program).__name__}; pass the model itself, or its "
        "unroll or innovations view (for noise_off(model) use method='mean')"
    )


def has_noisy_states(program: SequenceModel, batch: Batch) -> bool:
    """Whether any state is noisy.

    Raises:
        ValueError: dropout, sampled weights or γ, or states that are conditioned on.
    """
    program.dropout.refuse(
        "method='particle-filter' does not support dropout masks",
        "method 'importance', 'ensemble' or 'mean'",
    )
    trace = poutine.trace(program).get_trace(batch.inputs, batch.targets, **batch.keywords)
    noisy = False
    for site in all_sites(prune_subsample_sites(trace)):
        is_state = isinstance(site["fn"], NoisyPath)
        noisy = noisy or is_state
        if is_state and site["is_observed"]:
            raise ValueError(f"method='particle-filter' samples the states, but {site['name']!r} is conditioned on")
        if not is_state and not site["is_observed"]:
            raise ValueError(
                f"method='particle-filter' needs fixed weights and γ, but {site['name']!r} is sampled; condition on it "
                f"first, as in pyro.condition(model, {{{site['name']!r}: ...}})"
            )
    return noisy
