"""The particle filter: weighted particles that step through time together, an unbiased estimate of p(x_{1:T})."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from noisin_pyro.data import Batch
from noisin_pyro.inference.blocks import block_size
from noisin_pyro.inference.filtering.proposals import Proposal, Proposed
from noisin_pyro.inference.filtering.resampling import resample, select
from noisin_pyro.inference.guides import Guide
from noisin_pyro.models import EMISSIONS, Emission, Mixture, Scaled, SequenceModel, States, StepwiseRNN, scored_steps
from noisin_pyro.models._module import in_context
from noisin_pyro.models.noisy_rnn import State
from noisin_pyro.models.read_out import check_support, with_plain_weights

_ROW_WISE = {*EMISSIONS.values(), Mixture, Scaled, PyroModule[nn.Linear], PyroModule[nn.ModuleList]}


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
        effective_samples: effective sample size of each island before resampling, ``(R, B)``; 0 where there is no
            target.
        resampled: which islands were resampled, ``(R, B)``.
        weighted: the particles before resampling.
        proposed: how they moved.
        log_p: log p(x_t | z_t) of each particle, ``(R, K, B)``, with its gradient; None where gradients are off, or
            for an emission that acts row by row (:func:`is_row_wise`), which can be evaluated again.
        active: which sequences' weights changed, ``(B,)``; None for all.
        ancestors: the index of each particle's ancestor, ``(R, K, B)``; None if no island was resampled.
    """

    particles: Particles
    increment: Tensor
    effective_samples: Tensor
    resampled: Tensor
    weighted: Particles
    proposed: Proposed
    log_p: Tensor | None
    active: Tensor | None
    ancestors: Tensor | None


class Filtered(NamedTuple):
    """The result of filtering B sequences by R islands of K particles.

    Attributes:
        increments: log p̂(x_t | x_{<t}) of each island, ``(R, B, T)``, 0 beyond a sequence's length.
        effective_samples: effective sample sizes before resampling, summed over islands and the steps with
            a target, ``(B,)``.
        resamplings: number of resamplings of all islands, ``(B,)``.
    """

    increments: Tensor
    effective_samples: Tensor
    resamplings: Tensor


@dataclass(frozen=True)
class Settings:
    """How particles are drawn and resampled.

    Attributes:
        islands, particles: R and K; the particles of each island are weighted and resampled by themselves.
        threshold: an island's particles of a sequence are resampled if their effective sample size is below this
            fraction of K; 0 never resamples.
        guide: the proposal; None is the prior.
    """

    islands: int
    particles: int
    threshold: float
    guide: Guide | None = None


def run(
    program: SequenceModel,
    windows: list[Batch],
    islands: int,
    particles: int,
    threshold: float,
    guide: Guide | None = None,
) -> Filtered:
    """Filter B sequences by R independent islands of K particles each.

    Args:
        program: the model.
        windows: consecutive windows of the same sequences.
        islands, particles, threshold, guide: as in :class:`Settings`.
    """
    settings, current, filtered = Settings(islands, particles, threshold, guide), None, []
    for batch in windows:
        window, current = filter_window(program, batch, current, settings)
        filtered.append(window)
    increments, effective_samples, resamplings = zip(*filtered, strict=True)
    return Filtered(torch.cat(increments, -1), torch.stack(effective_samples).sum(0), torch.stack(resamplings).sum(0))


def rows_in_block(program: SequenceModel, particles: int, guide: Guide | None) -> int:
    """Number of sequences that are filtered together by so many particles each, to bound memory use."""
    emission, rnn = program.emission, program.rnn
    width = max(emission.num_parameters * emission.output_size, rnn.cell.gates * rnn.hidden_size)
    return block_size(particles * (width if guide is None else max(width, guide.width)))


@in_context  # one context for all steps, so that conditioned weights are found by their sites' names
def filter_window(
    program: SequenceModel,
    batch: Batch,
    particles: Particles | None,
    settings: Settings,
    state: State | None = None,
    visit: Callable[[FilterStep], None] = lambda step: None,
) -> tuple[Filtered, Particles]:
    """Filter one window.

    Args:
        program: the model.
        batch: the window.
        particles: those after the window before; None at the start.
        settings: how particles are drawn and resampled.
        state: what all particles start from if there are none, as for :class:`SequenceModel`; zeros if None.
        visit: called with each step.

    Returns:
        the result for this window, and the particles after it.
    """
    walk = program.rnn.stepwise(program.embed(batch.inputs), state)
    islands, num_particles = settings.islands, settings.particles
    particles = initial_particles(walk.start, islands, num_particles) if particles is None else particles
    guide = None if settings.guide is None else settings.guide.along(walk, batch.targets, batch.lengths, batch.mask)
    proposal = Proposal(walk, islands * num_particles, guide)
    total, device = batch.targets.shape[1], batch.targets.device
    real, scored = (
        [None] * total if steps is None else steps.to(device).unbind(-1)
        for steps in (scored_steps(batch.lengths, None, total), scored_steps(batch.lengths, batch.mask, total))
    )
    options, emission = (settings.threshold, proposal), with_plain_weights(program.emission)
    increments, effective_samples, resampled = [], [], []
    for t, x_t in enumerate(batch.targets.split(1, 1)):
        step = filter_step(walk, emission, t, particles, x_t, scored[t], *options, real=real[t])
        visit(step)
        particles = step.particles
        increments.append(step.increment)
        effective_samples.append(step.effective_samples)
        resampled.append(step.resampled)
    filtered = Filtered(
        torch.stack(increments, -1), torch.stack(effective_samples).sum((0, 1)), torch.stack(resampled).sum((0, 1))
    )
    return filtered, particles


def initial_particles(start: States, islands: int, particles: int) -> Particles:
    """R·K equally weighted copies of the states before the first step, ``(B, H)`` each."""
    like = start.z[0]
    z, c = (tuple(s if s is None else s.expand(islands * particles, *s.shape[-2:]) for s in each) for each in start)
    log_w = torch.full(
        (islands, particles, like.shape[-2]), -math.log(particles), dtype=torch.float64, device=like.device
    )
    return Particles(States(z, c), log_w)  # type: ignore[arg-type]


def filter_step(
    walk: StepwiseRNN,
    emission: Emission,
    t: int,
    particles: Particles,
    x_t: Tensor,
    scored: Tensor | None,
    threshold: float,
    proposal: Proposal | None = None,
    real: Tensor | None = None,
) -> FilterStep:
    """Propagate the particles, weight them by p(x_t | z_t) p(noise) / q(noise), and resample them if needed.

    States have gradients, weights have none: ``differentiable.py`` has the gradient of log p̂.

    Args:
        walk: the network, which steps along the inputs of the window.
        emission: p(x_t | z_t).
        t: index of the step in the window, from 0.
        particles: the particles after step t - 1.
        x_t: targets of the step, ``(B, 1)`` or ``(B, 1, D)``.
        scored: which sequences have a target at t, ``(B,)``, or None for all.
        threshold: particles are resampled if their effective sample size is below this fraction of K.
        proposal: draws the noise, along the same walk; by default from the prior.
        real: which sequences have a step at t, ``(B,)``, or None for all; padding changes neither states nor weights.
    """
    islands, num_particles, _ = particles.log_w.shape
    proposal = Proposal(walk, islands * num_particles) if proposal is None else proposal
    proposed = proposal.step(t, particles.states)
    states, log_ratio = proposed.states, proposed.log_ratio
    if real is not None:  # a sequence's particles stay at its end
        both = zip(states, particles.states, strict=True)
        states = States(*(tuple(map(partial(_where, real), *pair)) for pair in both))  # type: ignore[arg-type]
    has_gradient = torch.is_grad_enabled() and not is_row_wise(emission)
    with torch.set_grad_enabled(has_gradient):
        added = _log_prob(emission(proposed.output.unsqueeze(-2)), x_t).reshape(particles.log_w.shape)
    with torch.no_grad():
        log_w = particles.log_w + (added if scored is None else added.where(scored, 0.0)).double()
        active = scored
        if log_ratio is not None:
            log_ratio = log_ratio.reshape(log_w.shape).double()
            log_w = log_w + (log_ratio if real is None else log_ratio.where(real, 0.0))
            active = real
        increment = log_w.logsumexp(1, keepdim=True)
        if active is not None:  # weights are normalized, so it is 0 elsewhere but for rounding
            increment = increment.where(active, 0.0)
        # if no particle can produce x_t, p̂ is 0 from here on; equal weights keep the later steps finite
        log_w = (log_w - increment).where(increment > -math.inf, -math.log(num_particles))
        ess = log_w.exp().square().sum(1).reciprocal()
        due = ess < threshold * num_particles
        due = due if active is None else due & active
        ess = ess if scored is None else ess * scored
    weighted, after, ancestors = Particles(states, log_w), Particles(states, log_w), None
    # where reading the device would wait for it, each particle that is not due is its own ancestor
    if threshold > 0 and (due.is_cuda or due.any()):
        ancestors, log_w = resample(log_w, due)
        after = Particles(select(states, ancestors), log_w)
    log_p = added if has_gradient else None
    return FilterStep(after, increment.squeeze(1), ess, due, weighted, proposed, log_p, active, ancestors)


def is_row_wise(emission: Emission) -> bool:
    """Whether the density given one state is the same in every call, whatever the other states.

    A user's module may have dropout or batch normalization, so only the library's own are known to be.
    """
    return all(type(part) in _ROW_WISE for part in emission.modules())


def _log_prob(law: Any, x_t: Tensor) -> Tensor:
    try:
        return law.log_prob(x_t)
    except ValueError:
        check_support(law, x_t)  # says what is wrong with the targets
        raise


def _where(real: Tensor, new: Tensor | None, old: Tensor | None) -> Tensor | None:
    return None if new is None or old is None else torch.where(real.unsqueeze(-1), new, old)
