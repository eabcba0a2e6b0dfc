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
        return constraints.independent(constraints.greater_than_eq(lower), 1)  # rounding can put a draw on the bound
    if lower is None:
        return constraints.independent(constraints.less_than(upper), 1)
    return constraints.independent(constraints.interval(lower, upper), 1)


def lattice_tolerance(error: Tensor) -> Tensor:
    """How far from an integer a value with this rounding error may be and still count as that integer.

    From 0.5 on the error hides the lattice, and every value counts as the nearest integer.
    """
    return (ROUNDINGS * error).clamp(min=1e-3)


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
    # A value on or beyond a bound is moved inside by its rounding error, because the density at the bound may be log 0.
    if lower is not None:
        inside = inside & (value >= lower - slack)
        value = torch.where(value <= lower, torch.minimum(lower + error, mean), value)
    if upper is not None:
        inside = inside & (value <= upper + slack)
        value = torch.where(value >= upper, torch.maximum(upper - error, mean), value)
    return Projection(torch.where(inside, value, mean), inside)


def _project_integer(value, error, mean, lower, upper) -> Projection:
    value = value.detach()
    integer = value.round()
    if lower is not None:
        integer = integer.clamp(min=lower)
    if upper is not None:
        integer = integer.clamp(max=upper)
    inside = (value - integer).abs() <= lattice_tolerance(error)
    return Projection(torch.where(inside, integer, mean.detach().round()), inside)


def _project_simplex(value: Tensor, error: Tensor, mean: Tensor) -> Projection:
    positive = _project_interval(value, error, mean, 0.0, None)
    sums_to_one = (value.sum(-1, keepdim=True) - 1).abs() <= ROUNDINGS * error.sum(-1, keepdim=True)
    inside = (positive.inside & sums_to_one).all(-1, keepdim=True).expand(value.shape)
    return Projection(torch.where(inside, positive.value, mean), inside)


def _project_one_hot(value: Tensor, error: Tensor, mean: Tensor) -> Projection:
    value = value.detach()
    one_hot = torch.zeros_like(value).scatter_(-1, value.argmax(-1, keepdim=True), 1.0)
    inside = ((value - one_hot).abs() <= lattice_tolerance(error)).all(-1, keepdim=True).expand(value.shape)
    return Projection(one_hot, inside)


def _project_other(value: Tensor, support: Constraint, mean: Tensor) -> Projection:
    inside = support.check(value)
    if support.event_dim == 1:
        inside = inside.unsqueeze(-1).expand(value.shape)
    return Projection(torch.where(inside, value, mean), inside)
