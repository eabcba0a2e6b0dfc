"""Missing targets and padding: what is in the likelihood, and what stands in place of the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from noisin_pyro.models.noisy_path import real_steps


def scored_steps(lengths: Tensor | None, mask: Tensor | None, steps: int) -> Tensor | None:
    """Which of T targets are in the likelihood: neither padding nor missing, ``(..., B, T)``; None for all."""
    if lengths is None:
        return mask
    real = real_steps(lengths, steps)
    return real if mask is None else mask & real.to(mask.device)


def without_missing(targets: Tensor, mask: Tensor, event_dim: int) -> Tensor:
    """The targets with the first that is scored in place of missing ones, which may be NaN.

    A masked density is 0, but the gradient of a density outside its support, or at NaN, is NaN times 0.
    """
    batch, event = targets.shape[: targets.dim() - event_dim], targets.shape[targets.dim() - event_dim :]
    mask = mask.to(targets.device).expand(torch.broadcast_shapes(mask.shape, batch))
    targets = targets.expand(*mask.shape, *event)
    # on the device, without reading the mask; if no target of the batch is scored, or not all values of one, this one
    # may have NaN as well: the data have possible values there
    first = mask.reshape(-1).to(torch.uint8).argmax().reshape(1)
    value = targets.reshape(-1, *event).index_select(0, first)[0]
    value = torch.where(value.isnan(), targets.nan_to_num(), value)
    return targets.where(mask.reshape(*mask.shape, *[1] * event_dim), value)
