"""The filtering bound, log p̂(x) of a particle filter, as a Pyro program whose states are summed out.

Its noise is drawn inside the filter, so its sample sites are those of γ and weights with priors, and ``x``, a factor
with log p̂(x) of each sequence. Its ELBO is the bound: Σ log p̂(x), minus the KL of what a guide samples.

Source: filtering variational objectives, Maddison et al. (2017); variational sequential Monte Carlo, Naesseth et al.
(2018); auto-encoding sequential Monte Carlo, Le et al. (2018).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.nn.module import pyro_method
from torch import Tensor

from noisin_pyro.data import Batch
from noisin_pyro.inference.filtering.particle_filter import Particles, Settings, filter_window, filterable
from noisin_pyro.inference.filtering.proposals import check_proposal
from noisin_pyro.inference.guides import Guide
from noisin_pyro.models import SequenceModel, States
from noisin_pyro.models.noisy_rnn import State

Program = Callable[..., Any]
ParticleState = tuple[Tensor, ...]
"""z ``(L, K, B, H)``, an LSTM's c, and log-weights ``(L, K, B, 1)``, the same in each layer."""

USER = 'bound="filtering"'


class FilteringOutput(NamedTuple):
    """The result of filtering a batch.

    Attributes:
        state: the particles and their weights at the end, to continue from; each sequence's at its own length.
        log_likelihood: log p̂(x) of each sequence, given the particles at the start, ``(B,)``.
        effective_samples: effective sample size before resampling, summed over real steps, ``(B,)``.
        resamplings: number of resamplings, ``(B,)``.
    """

    state: ParticleState
    log_likelihood: Tensor
    effective_samples: Tensor
    resamplings: Tensor


@dataclass(frozen=True)
class FilteredProgram:
    """A :class:`SequenceModel`, in any view, with its states summed out by a particle filter. It takes its arguments.

    A ``state`` may be that of the model, from which all particles start, or that of :class:`FilteringOutput`.

    Raises:
        ValueError: when run, for a program that is not a :class:`SequenceModel` or has no targets, dropout, states that
            are conditioned on, or native poisson noise without the ancestor term or with a single particle.
    """

    model: Program
    settings: Settings

    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor | None = None,
        state: State | ParticleState | None = None,
        lengths: Tensor | None = None,
        size: int | None = None,
    ) -> FilteringOutput:
        program, conditions = filterable(self.model, USER)
        _refuse(program, conditions, self.settings)
        if targets is None:
            raise ValueError(f"targets must be given, since {USER} weights particles by them; got None")
        with contextlib.ExitStack() as handlers:
            for condition in conditions:
                handlers.enter_context(condition)
            return _filter(program, Batch(inputs, targets, lengths, False), state, size, self.settings)


def filtered(model: Program, guide: Program | None, settings: Settings) -> tuple[FilteredProgram, Program | None]:
    """The program with its states summed out, and the guide of what is left.

    A named guide draws the noise inside the filter. Any other guide samples γ or weights.
    """
    program, _ = filterable(model, USER)
    if isinstance(guide, Guide):
        return FilteredProgram(model, replace(settings, guide=check_proposal(guide, program))), None
    return FilteredProgram(model, settings), None if guide is None else _without_states(guide, program)


def _without_states(guide: Program, program: SequenceModel) -> Program:
    """The guide, checked for noise of whole sequences, which it may not sample."""
    rnn = program.rnn
    states = {f"{rnn.name}_{layer}{suffix}" for layer in rnn.noisy_layers for suffix in ("", "_noise")}

    def checked(*args: Any, **kwargs: Any) -> Any:
        with poutine.trace() as tracer:
            value = guide(*args, **kwargs)
        if wrong := states & tracer.trace.nodes.keys():
            raise ValueError(
                f"{USER} draws the noise step by step, but the guide samples {min(wrong)!r} of whole sequences; use "
                "guides.get with 'mean-field', 'filtering' or 'smoothing', or leave the noise to the prior"
            )
        return value

    return checked


def _refuse(program: SequenceModel, conditions: list[Any], settings: Settings) -> None:
    rnn = program.rnn
    program.dropout.refuse(f"{USER} does not support dropout masks", 'bound="elbo"')
    for layer in rnn.noisy_layers:
        name = f"{rnn.name}_{layer}"
        if any(name in condition.data for condition in conditions):
            raise ValueError(f"{USER} sums out the states, but {name!r} is conditioned on; drop that condition")
    if rnn.noisy_layers and not rnn.noise.has_rsample and (settings.particles < 2 or not settings.ancestor_term):
        raise ValueError(
            f"{USER} has no gradient for {rnn.noise} noise, which is discrete with a law that depends on the state, "
            f"unless ancestor_term=True and num_particles is at least 2, got {settings.ancestor_term} and "
            f"{settings.particles}"
        )


@pyro_method  # in the model's context, so that weights and γ with priors are the same in the whole program
def _filter(
    program: SequenceModel, batch: Batch, state: State | ParticleState | None, size: int | None, settings: Settings
) -> FilteringOutput:
    x = program.embed(batch.inputs)
    if x.dim() != 3:
        raise ValueError(f"inputs must have the axes (batch, time, features) for {USER}, got {tuple(x.shape)}")
    program._check_targets(batch.targets, x)
    program._sample_globals()
    particles = _particles(program, state, settings.particles, len(x))
    start: Any = state if particles is None else None
    filtered, last = filter_window(program, batch, particles, settings, start)
    log_likelihood = filtered.increments[0].sum(-1)
    with program.sequences(len(x), size):
        pyro.factor("x", log_likelihood)
    return FilteringOutput(_state(last), log_likelihood, filtered.effective_samples, filtered.resamplings)


def _particles(
    program: SequenceModel, state: State | ParticleState | None, num_particles: int, rows: int
) -> Particles | None:
    """The particles in a state; None for a state of the model, or none."""
    parts, memory = () if isinstance(state, Tensor) else tuple(state or ()), program.rnn.cell.has_memory
    if len(parts) <= 1 + memory:
        return None
    z, *c, log_w = parts
    expected = (program.rnn.num_layers, num_particles, rows, program.rnn.hidden_size)
    if len(c) != memory or z.shape != expected:
        raise ValueError(
            f"state must have z of shape {expected} (layers, particles, batch, units), an LSTM's c, and log-weights, "
            f"got {[tuple(part.shape) for part in parts]}; pass the state that the same bound returned for these rows"
        )
    return Particles(States(tuple(z), tuple(c[0]) if memory else (None,) * len(z)), log_w[:1].squeeze(-1))


def _state(particles: Particles) -> ParticleState:
    (z, c), log_w = particles
    memories = [part for part in c if part is not None]
    parts = [torch.stack(z), *([torch.stack(memories)] if memories else [])]
    return *parts, log_w.unsqueeze(-1).expand(len(z), -1, -1, -1)
