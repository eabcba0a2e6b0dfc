"""Systematic resampling of particles."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from noisin_pyro._lookup import as_number
from noisin_pyro.models import States


def checked_threshold(threshold: float) -> float:
    """Return a threshold of resampling.

    Raises:
        ValueError: one that is not a number from 0 to 1.
    """
    number: Any = as_number(threshold)
    if not isinstance(number, int | float) or not 0 <= number <= 1:
        raise ValueError(f"threshold must be from 0 (never resample) to 1, got {threshold!r}")
    return number


def systematic_ancestors(log_w: Tensor, due: Tensor) -> Tensor:
    """The index of each particle's ancestor, ``(R, K, B)``.

    Args:
        log_w: normalized log-weights of R islands of K particles for B sequences, ``(R, K, B)``.
        due: which islands and sequences to resample, ``(R, B)``; elsewhere each particle is its own ancestor.
    """
    particles = log_w.shape[1]
    places = torch.arange(particles, device=log_w.device)
    cumulative = log_w.exp().cumsum(1).mT.contiguous()  # (R, B, K)
    # rounding may leave the last cumulative weight below 1; scaling the points by it keeps them all below it
    points = (places + torch.rand_like(cumulative[..., :1])) / particles * cumulative[..., -1:]
    ancestors = torch.searchsorted(cumulative, points, right=True).clamp(max=particles - 1).mT
    return ancestors.where(due.unsqueeze(1), places[:, None])


def resample(log_w: Tensor, due: Tensor) -> tuple[Tensor, Tensor]:
    """Ancestors ``(R, K, B)``, and the log-weights after resampling; the arguments of :func:`systematic_ancestors`."""
    equal = torch.where(due.unsqueeze(1), -math.log(log_w.shape[1]), log_w)
    return systematic_ancestors(log_w, due), equal


def select(states: States, ancestors: Tensor) -> States:
    """The states of the ancestors ``(R, K, B)``: z and the memory cell of every layer."""
    islands, particles, rows = ancestors.shape
    if islands > 1:
        ancestors = ancestors + particles * torch.arange(islands, device=ancestors.device)[:, None, None]
    index = (ancestors * rows + torch.arange(rows, device=ancestors.device)).flatten()
    z, c = (
        tuple(s if s is None else s.reshape(len(index), -1).index_select(0, index).view(s.shape) for s in each)
        for each in states
    )
    return States(z, c)  # type: ignore[arg-type]
