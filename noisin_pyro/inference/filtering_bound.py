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
from pyro.poutine.mask_messenger import MaskMessenger
from pyro.poutine.runtime import _PYRO_STACK
from torch import Tensor
from torch.distributions import Distribution

from noisin_pyro._lookup import BatchError
from noisin_pyro.data import Batch
from noisin_pyro.inference.filtering.differentiable import differentiable_filter
from noisin_pyro.inference.filtering.particle_filter import Particles, Settings
from noisin_pyro.inference.filtering.proposals import check_proposal
from noisin_pyro.inference.filtering.support import conditions_around_call, filterable, refuse_own_forward
from noisin_pyro.inference.guides import Guide
from noisin_pyro.models import SequenceModel, States
from noisin_pyro.models._module import in_context
from noisin_pyro.models._validation import check_inputs
from noisin_pyro.models.missing import scored_steps, without_missing
from noisin_pyro.models.noisy_rnn import State
from noisin_pyro.models.read_out import check_finite

Program = Callable[..., Any]
ParticleState = tuple[Tensor, ...]
"""z ``(L, K, B, H)``, an LSTM's c, and log-weights ``(L, K, B, 1)``, the same in each layer."""

USER = 'bound="filtering"'


class FilteringOutput(NamedTuple):
    """The result of filtering a batch.

    Attributes:
        state: the particles and their weights at the end, to continue from; each sequence's at its own length.
        log_likelihood: log p̂(x) of each sequence, given the particles at the start, ``(B,)``.
        effective_samples: effective sample size before resampling, summed over the steps with a target, ``(B,)``.
        resamplings: number of resamplings, ``(B,)``.
    """

    state: ParticleState
    log_likelihood: Tensor
    effective_samples: Tensor
    resamplings: Tensor


@dataclass(frozen=True)
class FilteredProgram:
    """A :class:`SequenceModel`, in any view, with its states summed out by a particle filter. It takes its arguments.

    A ``state`` may be that of the model, from which all particles start, or that of :class:`FilteringOutput`. Handlers
    around the call act on γ, weights and ``x``: ``poutine.mask`` by sequence and ``poutine.scale`` on log p̂(x).

    Raises:
        ValueError: when run, for a program that is not a :class:`SequenceModel` or has no targets, dropout, states that
            are conditioned on, or native poisson noise without the ancestor term or with a single particle.
    """

    model: Program
    settings: Settings
    ancestor_term: bool = True

    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor | None = None,
        state: State | ParticleState | None = None,
        lengths: Tensor | None = None,
        size: int | None = None,
        mask: Tensor | None = None,
    ) -> FilteringOutput:
        program, conditions = filterable(self.model, USER)
        self._refuse(program, conditions + conditions_around_call())
        masks = [handler.mask for handler in _PYRO_STACK if isinstance(handler, MaskMessenger)]
        if wrong := [each for each in masks if isinstance(each, Tensor) and each.shape[:-1].numel() != 1]:
            raise ValueError(
                f"poutine.mask around {USER} acts on whole sequences, so it must have shape ({len(inputs)},), got "
                f"{tuple(wrong[0].shape)}; mark missing targets by the argument mask"
            )
        if targets is None:
            raise ValueError(f"targets must be given, since {USER} weights particles by them; got None")
        with contextlib.ExitStack() as handlers:
            for condition in conditions:
                handlers.enter_context(condition)
            batch = Batch(inputs, targets, lengths, False, mask)
            return _filter(program, batch, state, size, self.settings, self.ancestor_term)

    def _refuse(self, program: SequenceModel, conditions: list[Any]) -> None:
        rnn, particles = program.rnn, self.settings.particles
        refuse_own_forward(program, USER)
        if rnn._forward_pre_hooks:
            raise ValueError(
                f"{USER} does not call the layers' forward, where torch.nn.utils.weight_norm sets the weights by a "
                "hook; use torch.nn.utils.parametrizations.weight_norm"
            )
        if any("x" in condition.data for condition in conditions):
            raise ValueError(f"{USER} takes x as targets, but 'x' is conditioned on; drop that condition")
        program.dropout.refuse(f"{USER} does not support dropout masks", 'bound="elbo"')
        if rnn.noisy_layers and not rnn.noise.has_rsample and (particles < 2 or not self.ancestor_term):
            raise ValueError(
                f"{USER} has no gradient for {rnn.noise} noise, which is discrete with a law that depends on the "
                f"state, got ancestor_term={self.ancestor_term} and num_particles={particles}; use ancestor_term=True "
                "and num_particles of at least 2"
            )


def summed_out(
    model: Program, guide: Program | None, settings: Settings, ancestor_term: bool
) -> tuple[FilteredProgram, Program | None]:
    """The program with its states summed out, and the guide of what is left.

    A named guide draws the noise inside the filter. Any other guide samples γ or weights.
    """
    program, _ = filterable(model, USER)
    if isinstance(guide, Guide):
        settings = replace(settings, guide=check_proposal(guide, program))
        return FilteredProgram(model, settings, ancestor_term), None
    return FilteredProgram(model, settings, ancestor_term), guide and _without_states(guide, program)


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


@in_context  # in the model's context, so that weights and γ with priors are the same in the whole program
def _filter(
    program: SequenceModel,
    batch: Batch,
    state: State | ParticleState | None,
    size: int | None,
    settings: Settings,
    ancestor_term: bool,
) -> FilteringOutput:
    x = program.embed(batch.inputs)
    if x.dim() != 3:
        raise BatchError(f"inputs must have the axes (batch, time, features) for {USER}, got {tuple(x.shape)}")
    check_inputs(x, batch.lengths, program.rnn.input_size)
    sequences = program.sequences(len(x), size)
    targets: Any = program._checked_targets(batch.targets, x, batch.mask)
    for name, value, axes in (("targets", targets, 2 + program.emission.event_dim), ("mask", batch.mask, 2)):
        if value is not None and value.dim() != axes:
            raise BatchError(f"{name} must have no axes in front of the batch for {USER}, got {tuple(value.shape)}")
    scored = scored_steps(batch.lengths, batch.mask, x.shape[-2])
    if scored is not None:
        targets = without_missing(targets, scored, program.emission.event_dim)
    if Distribution._validate_args and targets.is_floating_point():
        check_finite(targets)
    batch = replace(batch, targets=targets)
    program._sample_globals()
    particles = _particles(program, state, settings.particles, len(x))
    start: Any = state if particles is None else None
    log_likelihood, filtered, last = differentiable_filter(program, batch, particles, settings, ancestor_term, start)
    with sequences:
        pyro.factor("x", log_likelihood)
    return FilteringOutput(_state(last), log_likelihood, filtered.effective_samples, filtered.resamplings)


def _particles(
    program: SequenceModel, state: State | ParticleState | None, num_particles: int, rows: int
) -> Particles | None:
    """The particles in a state; None for a state of the model, or none."""
    parts: Any = () if state is None else (state,) if isinstance(state, Tensor) else tuple(state)
    if wrong := [type(part).__name__ for part in parts if not isinstance(part, Tensor)]:
        raise ValueError(
            f"state must be tensors, got {type(state).__name__} with {wrong[0]}; pass the state alone, as in "
            "bound.returned.state"
        )
    memory = program.rnn.cell.has_memory
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
