"""log p̂(x) of a particle filter, with its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from noisin_pyro.data import Batch
from noisin_pyro.inference.filtering.particle_filter import Filtered, FilterStep, Particles, Settings, filter_window
from noisin_pyro.models import Emission, SequenceModel
from noisin_pyro.models.noisy_rnn import State
from noisin_pyro.recurrence.softmax import Softmax


def differentiable_filter(
    program: SequenceModel,
    batch: Batch,
    particles: Particles | None,
    settings: Settings,
    ancestor_term: bool,
    state: State | None = None,
) -> tuple[Tensor, Filtered, Particles]:
    """log p̂(x) of each sequence, ``(B,)``, with its gradient; and what :func:`filter_window` returns.

    The gradient is that of Σ_t Σ_k (∂log p̂ / ∂log w_{t,k}) log w_{t,k}, with the first factors as constants.
    Emissions that act row by row (:func:`is_row_wise`) are evaluated again for it, for all steps at once, and on a CPU
    only where the first factor is not 0: with the ancestor term, at particles with descendants at the end.

    Args:
        program, batch, particles, settings, state: as for :func:`filter_window`, with one island.
        ancestor_term: whether each particle carries the weight of its ancestor, divided by itself detached, through a
            resampling (Ścibior and Wood 2021).
    """
    steps: list[FilterStep] = []
    filtered, last = filter_window(program, batch, particles, settings, state, steps.append)
    value = filtered.increments[0].sum(-1)
    if not torch.is_grad_enabled():
        return value, filtered, last
    derivatives = torch.stack(_derivatives(steps, ancestor_term))  # (T, K, B)
    # a proposal's weights count at missing targets too
    of_targets = derivatives if batch.mask is None else derivatives.where(batch.mask.mT.unsqueeze(1), 0.0)
    log_p: Any = [step.log_p for step in steps]
    if log_p[0] is None:
        z = [step.proposed.output for step in steps]
        surrogate = _emission_term(program.emission, z, batch.targets.transpose(0, 1), of_targets)
    else:
        surrogate = _weighted(of_targets, torch.cat(log_p))
    ratios: Any = [step.proposed.log_ratio for step in steps]
    if ratios[0] is not None:
        surrogate = surrogate + _weighted(derivatives, torch.stack(ratios))
    surrogate = surrogate.sum((0, 1))
    # where log p̂ is -inf, it has no gradient
    return value + (surrogate - surrogate.detach()).nan_to_num(0.0), filtered, last


def _emission_term(emission: Emission, z: list[Tensor], x: Tensor, derivatives: Tensor) -> Tensor:
    """∂log p̂ / ∂log w times log p(x_t | z_t), ``(T, K, B)``.

    Args:
        z: states of each step, ``(K, B, H)``.
        x: targets, ``(T, B)`` or ``(T, B, D)``.
        derivatives: ∂log p̂ / ∂log w, ``(T, K, B)``.
    """
    x = x.unsqueeze(1).expand(*derivatives.shape, *x.shape[2:])
    counted = derivatives != 0
    # a GPU would have to wait for the number of rows
    if derivatives.is_cuda or counted.all() or not counted.any():
        return _weighted_log_prob(emission(torch.stack(z)), x, derivatives)
    # each step's rows by themselves: all states stacked, and their gradient, would have to be copied
    rows = counted.flatten(1).nonzero()[:, 1].split(counted.sum((1, 2)).tolist())
    z_counted = torch.cat([z_t.flatten(0, 1).index_select(0, index) for z_t, index in zip(z, rows, strict=True)])
    terms = _weighted_log_prob(emission(z_counted), x[counted], derivatives[counted])
    return terms.new_zeros(counted.shape).masked_scatter(counted, terms)


def _weighted_log_prob(law: Any, x: Tensor, derivatives: Tensor) -> Tensor:
    if isinstance(law, Softmax):
        return law.weighted_log_prob(x, derivatives)
    return _weighted(derivatives, law.log_prob(x))


def _weighted(derivatives: Tensor, log_w: Tensor) -> Tensor:
    """The product, 0 where the derivative is 0 and the log-weight may be -inf."""
    return derivatives.to(log_w) * torch.where(derivatives == 0, 0.0, log_w)


@torch.no_grad()
def _derivatives(steps: list[FilterStep], ancestor_term: bool) -> list[Tensor]:
    """∂log p̂ / ∂log w of each step, ``(K, B)``, where log w is what the step adds to the log-weights.

    At a sequence's last step it is the normalized weight W_T. With the ancestor term, that of a particle is the sum
    over its offspring, so the weight of all its descendants at the end. Without it, that of a particle that is
    resampled is its weight W_t, since later steps do not depend on it.
    """
    derivatives: list[Tensor] = []
    carried: Tensor | None = None
    has_ended: Any = None  # which sequences have steps behind this one; None if all have
    for step in reversed(steps):
        due, active = step.resampled[0], step.active
        weights = step.weighted.log_w[0].exp()
        if carried is None:
            carried, has_ended = weights, active
        else:
            if step.ancestors is not None:
                before = weights
                if ancestor_term:
                    before = torch.zeros_like(carried).scatter_add_(0, step.ancestors[0], carried)
                carried = torch.where(due, before, carried)
            if active is not None:
                carried, has_ended = torch.where(has_ended, carried, weights), has_ended | active
        derivatives.append(carried if active is None else carried.where(active, 0.0))
    return derivatives[::-1]
