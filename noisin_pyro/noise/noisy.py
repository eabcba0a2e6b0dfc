"""Distributions of the noisy state z around its mean."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Size, Tensor

from noisin_pyro.noise.standardized import Standardized
from noisin_pyro.noise.supports import Constraint, Region, between, bounds, lattice_tolerance
from noisin_pyro.noise.units import ONE, OverUnits


class Noisy(OverUnits):
    """z = mean + scale·ε, with ε from a standardised law over the last axis.

    ``mean`` ``(..., H)``; ``scale`` broadcasts against it and is the standard deviation of each unit; ``law`` has
    event shape ``(H,)``. ``rsample`` passes gradients to mean and scale, also for a discrete law. ``log_prob`` is −∞
    outside the support. Where a scale is 0 there is no density: ``multiplicative`` noise can meet that, a ValueError.
    """

    def __init__(self, mean: Tensor, scale: Tensor, law: dist.TorchDistribution, multiplicative: bool = False):
        shape = torch.broadcast_shapes(mean.shape, scale.shape, law.shape())
        self._mean, self.scale = mean.expand(shape), scale.expand(shape)
        self.law = law.expand(shape[:-1])
        self.multiplicative = multiplicative
        super().__init__(shape)

    def expand(self, batch_shape, _instance=None):
        shape = Size(batch_shape) + self.event_shape
        return Noisy(self._mean.expand(shape), self.scale.expand(shape), self.law, self.multiplicative)

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def variance(self) -> Tensor:
        return self.scale.square()

    @property
    def support(self) -> Constraint:
        base = self.law.support
        unit = getattr(base, "base_constraint", None)
        if unit is constraints.real:
            return constraints.real_vector
        # multiplied by a mean of unknown sign, a lower bound may become an upper one
        if unit is None or unit.is_discrete or self.multiplicative:
            return Region(lambda value: base.check((value - self._mean) / self.scale), base.is_discrete)
        return between(*(None if b is None else self._mean + self.scale * b for b in bounds(unit)))

    def rsample(self, sample_shape=ONE):
        return self._mean + self.scale * self.law.rsample(Size(sample_shape))

    def log_prob(self, value):
        self.check_event(value)
        if self.multiplicative and bool((self.scale == 0).any()):
            raise ValueError(
                "mean: multiplicative noise around a mean of 0 is exactly 0 (an atom), so z has no density there; use "
                'form="additive", or the innovations view, whose density is that of ε'
            )
        # an infinite z has no density, and no gradient (0·∞) unless it is taken out before it meets the scale
        finite = value.isfinite()
        value, size = torch.where(finite, value, 0), self.scale.abs()
        noise = (value - self._mean) / self.scale
        if isinstance(self.law, Standardized):
            # z was rounded when it was computed; in units of ε that error grows as the scale shrinks. A mean near 0 is
            # what terms of size 1 have left over, with their error, which its own scale does not cover.
            with torch.no_grad():
                terms = self._mean.abs() + value.abs() + self.multiplicative
                rounding = torch.finfo(value.dtype).eps * terms / size
            log_prob, coordinates = self.law.log_prob(noise, rounding), self.law.coordinates
            discrete = self.law.discrete
        else:
            log_prob, coordinates = self.law.log_prob(noise), noise.shape[-1]
            discrete = self.law.support.is_discrete
        if not discrete:
            log_prob = log_prob - size.log()[..., :coordinates].sum(-1)
        return log_prob.masked_fill(~finite.all(-1), -math.inf)


class NoisyBeta(OverUnits):
    """Independent Beta units with the given means in (0, 1) and variances spread²·mean·(1 − mean), 0 < spread < 1.

    The concentrations are mean·ν and (1 − mean)·ν with ν = 1/spread² − 1.
    """

    def __init__(self, mean: Tensor, spread: Tensor):
        self._mean, self.spread = torch.broadcast_tensors(mean, spread)
        precision = self.spread.pow(-2) - 1
        self._beta = dist.Beta(self._mean * precision, (1 - self._mean) * precision, validate_args=False)
        super().__init__(self._mean.shape)

    def expand(self, batch_shape, _instance=None):
        shape = Size(batch_shape) + self.event_shape
        return NoisyBeta(self._mean.expand(shape), self.spread.expand(shape))

    @property
    def support(self) -> Constraint:
        return constraints.independent(constraints.unit_interval, 1)

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def variance(self) -> Tensor:
        return self.spread.square() * self._mean * (1 - self._mean)

    def rsample(self, sample_shape=ONE):
        return _open_unit_interval(self._beta.rsample(Size(sample_shape)))

    def log_prob(self, value):
        self.check_event(value)
        inside = (value >= 0) & (value <= 1)
        log_prob = self._beta.log_prob(_open_unit_interval(torch.where(inside, value, 0.5)))
        return log_prob.masked_fill(~inside, -math.inf).sum(-1)


class NoisyPoisson(OverUnits):
    """z = spread²·N with N ~ Poisson(mean/spread²), mean > 0: independent units with variances spread²·mean.

    A draw passes no gradient; the mean gets one by the score function, the spread none (the lattice moves with it).
    """

    has_rsample = False

    def __init__(self, mean: Tensor, spread: Tensor):
        self._mean, self.spread = torch.broadcast_tensors(mean, spread)
        self.step = self.spread.detach().square()
        self._poisson = dist.Poisson(self._mean / self.step, validate_args=False)
        super().__init__(self._mean.shape)

    def expand(self, batch_shape, _instance=None):
        shape = Size(batch_shape) + self.event_shape
        return NoisyPoisson(self._mean.expand(shape), self.spread.expand(shape))

    @property
    def support(self) -> Constraint:
        return Region(lambda value: self._count(value)[1].all(-1), is_discrete=True)

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def variance(self) -> Tensor:
        return self.step * self._mean

    def sample(self, sample_shape=ONE):
        return self.step * self._poisson.sample(Size(sample_shape))

    def log_prob(self, value):
        self.check_event(value)
        count, inside = self._count(value)
        return self._poisson.log_prob(count).masked_fill(~inside, -math.inf).sum(-1)

    def _count(self, value: Tensor) -> tuple[Tensor, Tensor]:
        ratio = value.detach() / self.step
        count = ratio.round()
        error = torch.finfo(value.dtype).eps * ratio.abs()
        inside = ((ratio - count).abs() <= lattice_tolerance(error)) & (count >= 0) & ratio.isfinite()
        return torch.where(inside, count, 0), inside


def _open_unit_interval(value: Tensor) -> Tensor:
    """Keep a number off 0 and 1, where rounding may have put it and a Beta density may be infinite."""
    finfo = torch.finfo(value.dtype)
    return value.clamp(finfo.tiny, 1 - finfo.eps / 2)
