"""Reading a number that has been rounded as a point of a law's support."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions.constraints import Constraint


class Reading(NamedTuple):
    """``inside``: whether a number is on the support; ``value``: the point it means, anywhere harmless if outside."""

    value: Tensor
    inside: Tensor


Reader = Callable[[Tensor, Tensor, Tensor], Reading]

ROUNDINGS = 64
"""How many roundings a value may be off: a mean is computed when z is drawn, and in another order for log p(z)."""


def reader(support: Constraint) -> Reader:
    """How to read numbers near ``support``: a function of value, its rounding error and the law's mean."""
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


def between(lower: Tensor | float | None, upper: Tensor | float | None) -> Constraint:
    """The vectors whose units lie between the bounds; one of these may be None."""
    if upper is None:
        return constraints.independent(constraints.greater_than(lower), 1)
    if lower is None:
        return constraints.independent(constraints.less_than(upper), 1)
    return constraints.independent(constraints.interval(lower, upper), 1)


def lattice_tolerance(error: Tensor) -> Tensor:
    """How far from an integer a number that carries a rounding error may be and still be that integer."""
    return (ROUNDINGS * error).clamp(1e-3, 0.49)


class Region(Constraint):
    """A support over the last axis that is known by its membership test alone: a lattice, a simplex, one that moves."""

    event_dim = 1

    def __init__(self, contains: Callable[[Tensor], Tensor], is_discrete: bool):
        self._contains = contains
        self.is_discrete = is_discrete
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self._contains(value)

    def __repr__(self) -> str:
        return f"Region(is_discrete={self.is_discrete})"


def _real(value: Tensor, error: Tensor, mean: Tensor) -> Reading:
    inside = value.isfinite()
    return Reading(torch.where(inside, value, mean), inside)


def _interval(value, error, mean, lower, upper) -> Reading:
    slack = ROUNDINGS * error
    inside = value.isfinite()
    if lower is not None:
        inside = inside & (value >= lower - slack)
        # the edge is moved inwards as well, away from log 0
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
    on_plane = (value.sum(-1, keepdim=True) - 1).abs() <= ROUNDINGS * error.sum(-1, keepdim=True)
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
