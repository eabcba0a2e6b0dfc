"""Missing targets and padding: what is in the likelihood, and what stands in place of the rest."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from noisin_pyro.models.noisy_path import real_steps
from noisin_pyro.recurrence.matmul import is_tracing, needs_torch_operations


def scored_steps(lengths: Tensor | None, mask: Tensor | None, steps: int) -> Tensor | None:
    """Which of T targets are in the likelihood: neither padding nor missing, ``(..., B, T)``; None for all."""
    if lengths is None:
        return mask
    real = real_steps(lengths, steps)
    return real if mask is None else mask & real.to(mask.device)


def without_missing(targets: Tensor, mask: Tensor, event_dim: int, keep_finite: bool = False) -> Tensor:
    """The targets with the first that is scored in place of those that are not, which may be NaN.

    A masked density is 0, but the gradient of a density outside its support, or at NaN, is NaN times 0.

    Args:
        targets: values or classes x_t.
        mask: which of them are scored, ``(..., B, T)``.
        event_dim: dimensions of one x_t.
        keep_finite: leave values as they are if all are finite, on a CPU. Then a mask excludes padding from densities
            and gradients alike, and this takes an eighth of the time.
    """
    can_look = not (targets.is_cuda or is_tracing() or needs_torch_operations(targets))
    if keep_finite and targets.is_floating_point() and can_look and math.isfinite(targets.sum().item()):
        return targets
    batch, event = targets.shape[: targets.dim() - event_dim], targets.shape[targets.dim() - event_dim :]
    mask = mask.to(targets.device).expand(torch.broadcast_shapes(mask.shape, batch))
    targets = targets.expand(*mask.shape, *event)
    # on the device, without reading the mask; if no target of the batch is scored, this one may be NaN as well
    mask, rows = mask.reshape(-1), targets.reshape(-1, *event)
    value = rows.index_select(0, mask.to(torch.uint8).argmax().reshape(1))
    value = value.where(mask.any(), value.nan_to_num())
    # for vectors, whole rows are copied faster than torch.where chooses between single values
    index = torch.arange(len(rows), device=mask.device).where(mask, len(rows))
    return torch.cat([rows, value]).index_select(0, index).reshape(targets.shape)
