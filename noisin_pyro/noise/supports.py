"""Supports of laws, and the projection of rounded values onto them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions.constraints import Constraint


class Projection(NamedTuple):
    """A value moved onto a support.

    Attributes:
        value: the nearest point of the support; an arbitrary point of it where ``inside`` is False.
        inside: whether the original value was on the support, up to its rounding error.
    """

    value: Tensor
    inside: Tensor


Projector = Callable[[Tensor, Tensor, Tensor], Projection]

ROUNDINGS = 64
"""Tolerance in rounding errors: the mean is computed in a different order for a sample of z and for log p(z)."""


def projector(support: Constraint) -> Projector:
    """The projection onto ``support``: a function of a value, its rounding error and the law's mean."""
    if support in (constraints.real, constraints.real_vector):
        return _project_real
    if isinstance(support, type(constraints.simplex)):
        return _project_simplex
    if isinstance(support, type(constraints.one_hot)):
        return _project_one_hot
    lower, upper = bounds(support)
    if lower is None and upper is None:
        return lambda value, error, mean: _project_other(value, support, mean)
    if support.is_discrete:
        return lambda value, error, mean: _project_integer(value, error, mean, lower, upper)
    return lambda value, error, mean: _project_interval(value, error, mean, lower, upper)


def bounds(support: Constraint) -> tuple[Tensor | float | None, Tensor | float | None]:
    """Lower and upper bound of a scalar support; None where it is unbounded."""
    if support is constraints.boolean:
        return 0, 1
    return getattr(support, "lower_bound", None), getattr(support, "upper_bound", None)


def between(lower: Tensor | float | None, upper: Tensor | float | None) -> Constraint:
    """The vectors with every element between the bounds, one of which may be None."""
    if upper is None:
        return constraints.independent(constraints.greater_than(lower), 1)
    if lower is None:
        return constraints.independent(constraints.less_than(upper), 1)
    return constraints.independent(constraints.interval(lower, upper), 1)


def lattice_tolerance(error: Tensor) -> Tensor:
    """How far from an integer a value with this rounding error may be and still count as that integer."""
    return (ROUNDINGS * error).clamp(1e-3, 0.49)


class Region(Constraint):
    """A support over the last axis that is defined by a membership test only, such as a lattice or a simplex."""

    event_dim = 1

    def __init__(self, contains: Callable[[Tensor], Tensor], is_discrete: bool):
        self._contains = contains
        self.is_discrete = is_discrete
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self._contains(value)

    def __repr__(self) -> str:
        return f"Region(is_discrete={self.is_discrete})"


def _project_real(value: Tensor, error: Tensor, mean: Tensor) -> Projection:
    inside = value.isfinite()
    return Projection(torch.where(inside, value, mean), inside)


def _project_interval(value, error, mean, lower, upper) -> Projection:
    slack = ROUNDINGS * error
    inside = value.isfinite()
    if lower is not None:
        inside = inside & (value >= lower - slack)
        # strictly inside the bound, because the density at it may be log 0
        value = torch.where(value < lower + slack, lower + slack, value)
    if upper is not None:
        inside = inside & (value <= upper + slack)
        value = torch.where(value > upper - slack, upper - slack, value)
    return Projection(torch.where(inside, value, mean), inside)


def _project_integer(value, error, mean, lower, upper) -> Projection:
    value = value.detach()
    integer = value.round()
    inside = (value - integer).abs() <= lattice_tolerance(error)
    if lower is not None:
        inside = inside & (integer >= lower)
    if upper is not None:
        inside = inside & (integer <= upper)
    return Projection(torch.where(inside, integer, mean.detach().round()), inside)


def _project_simplex(value: Tensor, error: Tensor, mean: Tensor) -> Projection:
    positive = _project_interval(value, error, mean, 0.0, None)
    sums_to_one = (value.sum(-1, keepdim=True) - 1).abs() <= ROUNDINGS * error.sum(-1, keepdim=True)
    inside = (positive.inside & sums_to_one).all(-1, keepdim=True).expand(value.shape)
    return Projection(torch.where(inside, positive.value, mean), inside)


def _project_one_hot(value: Tensor, error: Tensor, mean: Tensor) -> Projection:
    bits = _project_integer(value, error, mean, 0, 1)
    is_one_hot = (bits.value.sum(-1, keepdim=True) == 1) & bits.inside.all(-1, keepdim=True)
    inside = is_one_hot.expand(value.shape)
    first = torch.zeros_like(value)
    first[..., 0] = 1
    return Projection(torch.where(inside, bits.value, first), inside)


def _project_other(value: Tensor, support: Constraint, mean: Tensor) -> Projection:
    inside = support.check(value)
    if support.event_dim == 1:
        inside = inside.unsqueeze(-1).expand(value.shape)
    return Projection(torch.where(inside, value, mean), inside)
