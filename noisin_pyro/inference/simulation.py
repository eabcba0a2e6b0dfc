"""Simulation of a model beyond the end of its data, along inputs that are made from its own draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noisin_pyro.data import InputLayout, Sequences, Series
from noisin_pyro.data.frames import future_covariates
from noisin_pyro.data.scaling import last_observed
from noisin_pyro.inference.filtering.particle_filter import Particles, Settings, filter_step, initial_particles
from noisin_pyro.inference.filtering.proposals import Proposal
from noisin_pyro.inference.filtering.resampling import select, systematic_ancestors
from noisin_pyro.models import SequenceModel, States, real_steps
from noisin_pyro.models._module import in_context
from noisin_pyro.models.read_out import with_plain_weights


@dataclass(frozen=True)
class Feed:
    """What N sequences read after their end.

    Attributes:
        last: x_T, ``(N, D)`` or classes ``(N,)``; in series the last values observed.
        observed: whether x_T is observed, ``(N, D)``; of series.
        covariates: of H future steps, ``(N, H, C)``; None if there are none.
        layout: makes the inputs of series. Without it the inputs are the covariates, or else x_{t-1} itself.
        times: the future times of each series that came with the covariates; None if there are none.
    """

    last: Tensor
    observed: Tensor | None = None
    covariates: Tensor | None = None
    layout: InputLayout | None = None
    times: Sequence[Any] | None = None

    def rows(self, index: slice) -> Feed:
        """Those of some sequences."""
        parts = (None if part is None else part[index] for part in (self.last, self.observed, self.covariates))
        return Feed(*parts, self.layout)  # type: ignore[arg-type]

    def inputs(self, t: int, x: Tensor | None) -> Tensor:
        """The inputs of future step t (from 0), ``(..., B, 1, I)`` or ``(..., B, 1)``.

        Args:
            x: draws of the step before, ``(S, B, ...)``; None at the first step.
        """
        known = None if self.covariates is None else self.covariates[:, t]
        if self.layout is not None:
            observed = self.observed if x is None else torch.ones_like(x, dtype=torch.bool)
            assert observed is not None
            values = self.layout.step(self.last if x is None else x, observed, known)
        else:
            values = known if known is not None else self.last if x is None else x
        return values.unsqueeze(-1 if values.dtype == torch.long else -2)


def feed_of(data: Sequences, num_steps: int, covariates: Any = None) -> Feed:
    """The feed of a data set, from its last values and the covariates of the future.

    Raises:
        ValueError: covariates that are missing, that the data do not have, or of another shape.
    """
    rows, ends = torch.arange(len(data), device=data.inputs.device), data.lengths - 1
    if isinstance(data, Series):
        names, size = data.layout.covariates, len(data.layout.covariates)
        if covariates is not None and not names:
            raise ValueError("covariates have no effect on data without covariates; leave them out")
        if covariates is None and names:
            raise ValueError(
                f"covariates must be given for data with covariates: {', '.join(map(str, names))} of the future steps, "
                f"shape ({len(data)}, {num_steps}, {size}), in the units of the data, or a frame of the future rows"
            )
        times = None
        if hasattr(covariates, "columns"):
            covariates, times = future_covariates(covariates, data, num_steps)
        known = _checked(covariates, data, num_steps, size) if names else None
        last, observed = last_observed(data.values)[rows, ends], ~data.values[rows, ends].isnan()
        return Feed(last, observed, known, data.layout, times)
    if covariates is not None:
        known = _checked(covariates, data, num_steps, data.inputs.shape[-1]).to(data.inputs)
        return Feed(data.targets[rows, ends], None, known)
    if data.mask is not None and not data.mask[rows, ends].all():
        raise ValueError(
            "data must have the last value of every sequence, which is the next input; shorten the sequences, or make "
            "them by data.from_arrays, which marks missing inputs"
        )
    if not reads_its_past(data):
        raise ValueError(
            "covariates must be given, since inputs are not the targets of the step before: the inputs of the future "
            f"steps, shape ({len(data)}, {num_steps}, {data.inputs.shape[-1]}); or make the data by data.from_arrays, "
            "whose inputs are made of past values and covariates"
        )
    return Feed(data.targets[rows, ends].to(data.inputs.dtype))


def _checked(covariates: Any, data: Sequences, num_steps: int, size: int) -> Tensor:
    shape = (len(data), num_steps, size)
    try:
        given = covariates if isinstance(covariates, Tensor) else torch.as_tensor(np.asarray(covariates, dtype=float))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"covariates must be numbers of shape {shape}, (sequences, future steps, covariates), or for series from a "
            f"frame a frame, got {type(covariates).__name__} ({error})"
        ) from error
    if given.shape != shape or not given.isfinite().all():
        raise ValueError(
            f"covariates must be finite numbers of shape {shape}, (sequences, future steps, covariates), got "
            f"{tuple(given.shape)}{'' if given.shape != shape else ' with NaN or infinite values'}"
        )
    return given.to(data.inputs.device)


def reads_its_past(data: Sequences) -> bool:
    """Whether the input of each step is the target of the step before."""
    inputs, targets = data.inputs[:, 1:], data.targets[:, :-1]
    if inputs.shape != targets.shape:
        return False
    observed = real_steps(data.lengths, data.targets.shape[1])[:, 1:]
    observed = observed if data.mask is None else observed & data.mask[:, :-1]
    return bool((inputs[observed] == targets[observed]).all())


def resampled(particles: Particles, last: Tensor | None = None) -> tuple[States, Tensor | None]:
    """Equally weighted states from the weighted ones of one island, and what they read next, ``(K, B, D)``."""
    ancestors = systematic_ancestors(particles.log_w, torch.ones_like(particles.log_w[:, 0], dtype=torch.bool))
    if last is not None:
        last = _select(last, ancestors)
    return select(particles.states, ancestors), last


def _select(values: Tensor, ancestors: Tensor) -> Tensor:
    return values.gather(0, ancestors[0].unsqueeze(-1).expand_as(values))


@in_context  # in the model's context, so that conditioned weights are found by their sites' names
def simulate(
    program: SequenceModel,
    states: States,
    feed: Feed,
    num_steps: int,
    actual: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Draw x of future steps, each given the draws before it.

    Args:
        states: S states for each of B sequences, ``(S, B, H)`` each.
        feed: what the sequences read.
        actual: the values that came, ``(B, H)`` or ``(B, H, D)``.

    Returns:
        x ``(S, B, H)`` or ``(S, B, H, D)``, and log p(actual | z) of each step ``(S, B, H)``, if there are any.
    """
    emission, draws, log_p = with_plain_weights(program.emission), [], []
    walk, x = program.rnn.stepwise(program.embed(feed.inputs(0, None))), None
    for t in range(num_steps):
        if t > 0:
            walk = replace(walk, inputs=program.embed(feed.inputs(t, x)))
        proposed = Proposal(walk, len(states.z[0])).step(0, states)
        states, law = proposed.states, emission(proposed.output.unsqueeze(-2))
        draws.append(law.sample())
        x = draws[-1].squeeze(2)
        if actual is not None:
            log_p.append(law.log_prob(actual[:, t : t + 1]))
    samples = torch.cat(draws, 2)
    if not samples.isfinite().all():
        step = int((~samples.isfinite()).flatten(3).any(-1).any(0).any(0).nonzero()[0]) + 1
        raise ValueError(
            f"forecast: the model's own draws overflow at future step {step}; forecast fewer steps, or use a cell with "
            "a bounded state, such as tanh"
        )
    return samples, torch.cat(log_p, 2) if log_p else None


@in_context
def filter_with_draws(program: SequenceModel, data: Series, settings: Settings) -> tuple[Particles, Tensor]:
    """Filter series where each particle reads its own draw of a missing value (the generative reading).

    The indicators of missing values are 0 then, as in :meth:`InputLayout.step` for values that a model draws.

    Returns:
        the particles at the ends of the series, and what each reads next, ``(K, N, D)``, in the same order.
    """
    emission, layout, values = with_plain_weights(program.emission), data.layout, data.values
    real = real_steps(data.lengths, values.shape[1]).unbind(1)
    walk = program.rnn.stepwise(program.embed(data.inputs[:, :1]))
    particles = initial_particles(walk.start, 1, settings.particles)
    last = values.new_full((settings.particles, len(data), values.shape[-1]), torch.nan)
    for t, batch in enumerate(values.unbind(1)):
        known = data.covariates[:, t] if layout.covariates else None
        inputs = layout.step(last, ~last.isnan(), known).unsqueeze(-2)
        walk = replace(walk, inputs=program.embed(inputs))
        scored, x_t = ~batch.isnan().all(-1), data.targets[:, t : t + 1]
        step = filter_step(walk, emission, 0, particles, x_t, scored, settings.threshold, real=real[t])
        drawn = emission(step.proposed.output.unsqueeze(-2)).sample().squeeze(2)
        drawn = torch.where(real[t].unsqueeze(-1), drawn.where(batch.isnan(), batch), last)
        particles, last = step.particles, drawn if step.ancestors is None else _select(drawn, step.ancestors)
    return particles, last
