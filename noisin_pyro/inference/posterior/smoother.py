"""Forward filtering, backward sampling: draws of whole trajectories, for sequences of any length.

A particle filter runs forward and stores its particles. A draw then picks z_T by its weight, and backward in time z_t
among the particles, with probabilities proportional to W_t p(z_{t+1} | z_t).

Source: Godsill, Doucet and West (2004), *Monte Carlo Smoothing for Nonlinear Time Series*.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pyro import poutine
from torch import Tensor

from noisin_pyro.data import Batch
from noisin_pyro.inference.blocks import block_size, blocks
from noisin_pyro.inference.filtering.particle_filter import (
    FilterStep,
    Settings,
    filter_window,
)
from noisin_pyro.inference.filtering.support import filterable, has_noisy_states, refuse_own_forward
from noisin_pyro.inference.observed import steps_of
from noisin_pyro.inference.posterior.samplers import Draws, Latents
from noisin_pyro.models import SequenceModel, States, StepwiseRNN, real_steps
from noisin_pyro.models.views import view_of
from noisin_pyro.noise.standardized import Standardized

USER, THRESHOLD = "method='smoother'", 0.5
OTHERS = "method='guide' or 'nuts'"


class _Stored(NamedTuple):
    """Particles at one step, before resampling: z of each noisy layer, ``(K, B, H)``, and log-weights ``(K, B)``."""

    z: dict[int, Tensor]
    log_w: Tensor


def by_smoothing(
    model: Callable[..., Any], batch: Batch, num_samples: int, num_chains: int, num_particles: int
) -> Draws:
    """Draw trajectories from ``num_chains`` independent filters, ``num_samples`` from each.

    Raises:
        ValueError: a model for which the weights p(z_{t+1} | z_t) would be wrong or are not defined.
    """
    if view_of(model) is not None:
        raise ValueError(f"{USER} draws the states of the model itself; pass it without a view")
    program, conditions = filterable(model, USER)
    refuse_own_forward(program, USER)
    refuse(program)
    settings = Settings(1, num_particles, THRESHOLD)
    parts: list[tuple[Latents, Tensor]] = []
    with contextlib.ExitStack() as handlers:
        for condition in (poutine.block(), *conditions):
            handlers.enter_context(condition)
        has_noisy_states(program, batch, USER)
        for block in blocks(len(batch.targets), _rows_in_block(program, batch, num_particles)):
            chains = [_smooth(program, batch.rows(block), num_samples, settings) for _ in range(num_chains)]
            latents = {name: torch.cat([each[name] for each, _ in chains]) for name in chains[0][0]}
            parts.append((latents, torch.stack([effective for _, effective in chains])))
    latents = {name: torch.cat([each[name] for each, _ in parts], 1) for name in parts[0][0]}
    return Draws(latents, effective_particles=torch.cat([effective for _, effective in parts], 1))


def _rows_in_block(program: SequenceModel, batch: Batch, num_particles: int) -> int:
    """Number of sequences that are smoothed together."""
    rnn = program.rnn
    return block_size(num_particles * batch.targets.shape[1] * (rnn.num_layers * rnn.hidden_size + rnn.input_size))


def stored_bytes(program: Any, batch: Batch, num_particles: int) -> int:
    """Memory that the particles of a block of sequences take at all steps, in bytes; 0 for a program without layers,
    which :func:`by_smoothing` refuses."""
    if not isinstance(program, SequenceModel):
        return 0
    rnn, (total, steps) = program.rnn, batch.targets.shape[:2]
    rows = min(total, _rows_in_block(program, batch, num_particles))
    noisy = sum(rnn.hidden_size if layer else rnn.input_size for layer in rnn.noisy_layers)
    log_w = torch.finfo(torch.float64).bits // 8
    size = next(rnn.parameters(), torch.empty(0)).element_size()  # all weights may be sampled
    return rows * num_particles * steps * (noisy * size + log_w)


def refuse(program: SequenceModel) -> None:
    """Check that p(z_{t+1} | z_t) is the density of everything that connects a particle's past to its future.

    Raises:
        ValueError: an LSTM, ``feedback=False``, a recurrent layer without noise, or noise without a density of full
            dimension around every mean.
    """
    rnn, family, (low, high) = program.rnn, program.rnn.noise, program.rnn.cell.range
    if rnn.cell.has_memory:
        raise ValueError(
            f"{USER} does not support the {rnn.cell.name} cell: its memory is deterministic given the past, so a "
            f"trajectory cannot pass from one particle to another; use {OTHERS}"
        )
    if not rnn.feedback or set(range(1, rnn.num_layers + 1)) - set(rnn.noisy_layers):
        raise ValueError(
            f"{USER} needs noise that feeds back in every layer, or the states without noise would have no density; "
            f"got feedback={rnn.feedback} and noise in layers {rnn.noisy_layers}; use {OTHERS}"
        )
    if family.discrete:
        raise ValueError(f"{USER} needs noise with a density, but {family} noise is discrete; use method='prior'")
    law = family.law(torch.ones(()), rnn.hidden_size) if family.has_innovations else None
    if isinstance(law, Standardized) and law.density_dim < rnn.hidden_size:
        raise ValueError(
            f"{USER} needs noise with a density over all units, but the units of {family} noise sum to zero; "
            f"use {OTHERS}"
        )
    can_be_zero = low < 0 < high or (rnn.cell.attains_range and 0 in (low, high))
    if family.form == "multiplicative" and can_be_zero:
        raise ValueError(
            f"{USER} needs a density around every mean, but {family} noise has none around 0, which the "
            f"{rnn.cell.name} cell can reach; use the sigmoid cell, additive noise, or {OTHERS}"
        )


def _smooth(program: SequenceModel, batch: Batch, num_draws: int, settings: Settings) -> tuple[Latents, Tensor]:
    """Draws by site name, ``(M, B, T, H)``, of one filter, and its mean effective sample size, ``(B,)``."""
    stored: list[_Stored] = []

    def store(step: FilterStep) -> None:
        stored.append(_Stored(step.proposed.drawn, step.weighted.log_w[0]))

    filtered, _ = filter_window(program, batch, None, settings, visit=store)
    rows, steps = batch.targets.shape[:2]
    lengths = torch.full((rows,), steps) if batch.lengths is None else batch.lengths
    real = real_steps(lengths.to(batch.targets.device), steps)
    walk = program.rnn.stepwise(program.embed(batch.inputs))
    per_draw = settings.particles * rows * program.rnn.cell.gates * program.rnn.hidden_size
    paths = [
        _backward(walk, stored, real, block.stop - block.start) for block in blocks(num_draws, block_size(per_draw))
    ]
    latents = {
        f"{program.rnn.name}_{layer}": torch.cat([path[layer] for path in paths]) for layer in program.rnn.noisy_layers
    }
    return latents, (filtered.effective_samples / steps_of(batch).sum(1).clamp(min=1)).cpu()


def _backward(walk: StepwiseRNN, stored: list[_Stored], real: Tensor, num_draws: int) -> dict[int, Tensor]:
    """M trajectories z_{1:T} of each noisy layer, ``(M, B, T, H)``."""
    last = stored[-1]
    index = _sample(last.log_w.expand(num_draws, *last.log_w.shape))
    path = [{layer: _at(z, index) for layer, z in last.z.items()}]
    for t in range(len(stored) - 2, -1, -1):
        log_w = stored[t].log_w.expand(num_draws, *stored[t].log_w.shape)
        # before padding a trajectory ends, so z_t depends on nothing behind it
        transition = torch.where(real[:, t + 1], _log_transition(walk, t + 1, stored[t].z, path[-1]), 0.0)
        index = _sample(log_w + transition)
        path.append({layer: _at(z, index) for layer, z in stored[t].z.items()})
    return {layer: torch.stack([z[layer] for z in reversed(path)], -2) for layer in last.z}


def _log_transition(walk: StepwiseRNN, t: int, z: dict[int, Tensor], z_t: dict[int, Tensor]) -> Tensor:
    """log p(z_t | z_{t-1}) of M trajectories given each of K particles, ``(M, K, B)``.

    Args:
        z: z_{t-1} of each noisy layer, ``(K, B, H)``.
        z_t: ``(M, B, H)``.
    """
    terms: list[Any] = []

    def draw(layer: int, mean: Tensor) -> Tensor:
        value = z_t[layer].unsqueeze(1)
        if layer:  # noise of the inputs does not depend on the past
            terms.append(walk.law(layer, mean).log_prob(value).double())
        return value

    layers = range(1, len(walk.weights) + 1)
    walk.step(t, States(tuple(z[layer].unsqueeze(0) for layer in layers), (None,) * len(layers)), draw)
    total: Any = sum(terms)
    return total


def _sample(log_w: Tensor) -> Tensor:
    """An index of K, ``(M, B)``, with probabilities proportional to weights ``(M, K, B)``."""
    return torch.distributions.Categorical(logits=log_w.movedim(1, -1), validate_args=False).sample()


def _at(z: Tensor, index: Tensor) -> Tensor:
    """The particles z ``(K, B, H)`` with indices ``(M, B)``: ``(M, B, H)``."""
    return z[index, torch.arange(z.shape[1], device=z.device)]
