"""Reading a number that has been rounded as a point of a law's support."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from pyro.distributions import constraints
from torch import Size, Tensor

Constraint = torch.distributions.constraints.Constraint


class Reading(NamedTuple):
    """`value`: a point at which a log-density is finite or −∞ and has a finite gradient; `inside`: whether it is the one meant."""

    value: Tensor
    inside: Tensor


Reader = Callable[[Tensor, Tensor, Tensor], Reading]


def reader(support: Constraint) -> Reader:
    """How to read numbers near `support`: a function of (value, its rounding error, the law's mean), all `(..., size)`."""
    if support in (constraints.real, constraints.real_vector):
        return _real
    if isinstance(support, type(constraints.simplex)):
        return _simplex
    if isinstance(support, type(constraints.one_hot)):
        return _one_hot
    lower, upper = bounds(support)
    if lower is None and upper is None:
        return lambda value, error, mean: _elsewhere(value, support, mean)
    if support.is_discrete:
        return lambda value, error, mean: _integer(value, error, mean, lower, upper)
    return lambda value, error, mean: _interval(value, error, mean, lower, upper)


def bounds(support: Constraint) -> tuple[Tensor | float | None, Tensor | float | None]:
    """Least and greatest value of a scalar support; None where it has none."""
    if support is constraints.boolean:
        return 0, 1
    return getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)


def lattice_tolerance(error: Tensor) -> Tensor:
    """How far from an integer a number that carries a rounding error may be and still be that integer."""
    return (64 * error).clamp(1e-3, 0.49)


def check_event(value: Tensor, event_shape: Size) -> None:
    """Refuse a value whose last axis would be broadcast over the units."""
    if value.shape[-1:] != event_shape:
        raise ValueError(
            f"value: expected {event_shape[0]} units on the last axis, got shape {tuple(value.shape)}; "
            "pass values of shape (..., batch, units)"
        )


class Region(Constraint):
    """A support over the last axis known only by its membership test: a lattice, a simplex, or one that moves with the mean."""

    event_dim = 1

    def __init__(self, contains: Callable[[Tensor], Tensor], is_discrete: bool):
        self._contains = contains
        self.is_discrete = is_discrete
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self._contains(value)


def _real(value: Tensor, error: Tensor, mean: Tensor) -> Reading:
    inside = value.isfinite()
    return Reading(torch.where(inside, value, mean), inside)


def _interval(value, error, mean, lower, upper) -> Reading:
    # 4: the errors add up over a handful of operations; the edge itself is moved inwards, away from log 0
    slack = 4 * error
    inside = value.isfinite()
    if lower is not None:
        inside = inside & (value >= lower - slack)
        value = torch.where(value < lower + slack, lower + slack, value)
    if upper is not None:
        inside = inside & (value <= upper + slack)
        value = torch.where(value > upper - slack, upper - slack, value)
    return Reading(torch.where(inside, value, mean), inside)


def _integer(value, error, mean, lower, upper) -> Reading:
    value = value.detach()
    integer = value.round()
    inside = (value - integer).abs() <= lattice_tolerance(error)
    if lower is not None:
        inside = inside & (integer >= lower)
    if upper is not None:
        inside = inside & (integer <= upper)
    return Reading(torch.where(inside, integer, mean.detach().round()), inside)


def _simplex(value: Tensor, error: Tensor, mean: Tensor) -> Reading:
    edge = _interval(value, error, mean, 0.0, None)
    on_plane = (value.sum(-1, keepdim=True) - 1).abs() <= 4 * error.sum(-1, keepdim=True)
    inside = (edge.inside & on_plane).all(-1, keepdim=True).expand(value.shape)
    return Reading(torch.where(inside, edge.value, mean), inside)


def _one_hot(value: Tensor, error: Tensor, mean: Tensor) -> Reading:
    bits = _integer(value, error, mean, 0, 1)
    one = (bits.value.sum(-1, keepdim=True) == 1) & bits.inside.all(-1, keepdim=True)
    inside = one.expand(value.shape)
    first = torch.zeros_like(value)
    first[..., 0] = 1
    return Reading(torch.where(inside, bits.value, first), inside)


def _elsewhere(value: Tensor, support: Constraint, mean: Tensor) -> Reading:
    inside = support.check(value)
    if support.event_dim == 1:
        inside = inside.unsqueeze(-1).expand(value.shape)
    return Reading(torch.where(inside, value, mean), inside)
