"""Distributions of the noisy state z around its mean."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Size, Tensor

from noisin_pyro.noise.standardized import Standardized, UnitDistribution
from noisin_pyro.noise.supports import Constraint, Region, between, bounds, lattice_tolerance


class NoisyState(UnitDistribution):
    """z = mean + scale·ε, with ε from a standardized law over the last axis.

    ``rsample`` is differentiable in mean and scale, also for a discrete law. ``log_prob`` is −∞ outside the support.

    Args:
        mean: ``(..., H)``.
        scale: standard deviation of each unit, up to sign; broadcasts against ``mean``.
        law: the law of ε, event shape ``(H,)``.
        multiplicative: whether the scale is proportional to the mean, and so may be 0, where z has no density;
            ``log_prob`` then raises a ``ValueError``.
    """

    def __init__(self, mean: Tensor, scale: Tensor, law: dist.TorchDistribution, multiplicative: bool = False):
        shape = torch.broadcast_shapes(mean.shape, scale.shape, law.shape())
        self._mean, self.scale = mean.expand(shape), scale.expand(shape)
        self.law = law.expand(shape[:-1])
        self.multiplicative = multiplicative
        super().__init__(shape)

    def expand(self, batch_shape, _instance=None):
        shape = Size(batch_shape) + self.event_shape
        return NoisyState(self._mean.expand(shape), self.scale.expand(shape), self.law, self.multiplicative)

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def variance(self) -> Tensor:
        return self.scale.square()

    @property
    def support(self) -> Constraint:
        law_support = self.law.support
        unit_support = getattr(law_support, "base_constraint", None)
        if unit_support is constraints.real:
            return constraints.real_vector
        # multiplication by a mean of unknown sign may turn a lower bound into an upper one
        if unit_support is None or unit_support.is_discrete or self.multiplicative:
            return Region(lambda value: law_support.check((value - self._mean) / self.scale), law_support.is_discrete)
        return between(*(None if b is None else self._mean + self.scale * b for b in bounds(unit_support)))

    def rsample(self, sample_shape=Size()):
        return self._mean + self.scale * self.law.rsample(Size(sample_shape))

    def log_prob(self, value):
        self.check_event(value)
        if self.multiplicative and bool((self.scale == 0).any()):
            raise ValueError(
                "mean: multiplicative noise around a mean of 0 is exactly 0 (an atom), so z has no density there; use "
                'form="additive", or the innovations view, whose density is that of ε'
            )
        # An infinite z is replaced before it meets the scale: its gradient would be 0·∞ = NaN.
        finite = value.isfinite()
        value, abs_scale = torch.where(finite, value, 0), self.scale.abs()
        epsilon = (value - self._mean) / self.scale
        if isinstance(self.law, Standardized):
            # z was rounded when it was computed; divided by the scale, that error grows as the scale shrinks. A mean
            # near 0 may be the sum of terms of size 1 and has their rounding error, so multiplicative noise, whose
            # scale shrinks with the mean, allows for a term of 1.
            with torch.no_grad():
                magnitude = self._mean.abs() + value.abs() + self.multiplicative
                rounding = torch.finfo(value.dtype).eps * magnitude / abs_scale
            log_prob, density_dim = self.law.log_prob(epsilon, rounding), self.law.density_dim
            discrete = self.law.discrete
        else:
            log_prob, density_dim = self.law.log_prob(epsilon), epsilon.shape[-1]
            discrete = self.law.support.is_discrete
        if not discrete:
            # change of variables: log p(z) = log p(ε) − Σ log |scale|
            log_prob = log_prob - abs_scale.log()[..., :density_dim].sum(-1)
        return log_prob.masked_fill(~finite.all(-1), -math.inf)


class NativeState(UnitDistribution):
    """Base class of distributions of z with independent units that are defined by mean and spread, ``(..., H)``."""

    def __init__(self, mean: Tensor, spread: Tensor):
        self._mean, self.spread = torch.broadcast_tensors(mean, spread)
        super().__init__(self._mean.shape)

    def expand(self, batch_shape, _instance=None):
        shape = Size(batch_shape) + self.event_shape
        return type(self)(self._mean.expand(shape), self.spread.expand(shape))

    @property
    def mean(self) -> Tensor:
        return self._mean


class NoisyBeta(NativeState):
    """Independent Beta units with the given means in (0, 1) and variances spread²·mean·(1 − mean), 0 < spread < 1.

    The concentrations are mean·ν and (1 − mean)·ν with ν = 1/spread² − 1.
    """

    def __init__(self, mean: Tensor, spread: Tensor):
        super().__init__(mean, spread)
        precision = self.spread.pow(-2) - 1
        self._beta = dist.Beta(self._mean * precision, (1 - self._mean) * precision, validate_args=False)

    @property
    def support(self) -> Constraint:
        return constraints.independent(constraints.unit_interval, 1)

    @property
    def variance(self) -> Tensor:
        return self.spread.square() * self._mean * (1 - self._mean)

    def rsample(self, sample_shape=Size()):
        return _clamp_to_open_interval(self._beta.rsample(Size(sample_shape)))

    def log_prob(self, value):
        self.check_event(value)
        inside = (value >= 0) & (value <= 1)
        log_prob = self._beta.log_prob(_clamp_to_open_interval(torch.where(inside, value, 0.5)))
        return log_prob.masked_fill(~inside, -math.inf).sum(-1)


class NoisyPoisson(NativeState):
    """z = spread²·N with N ~ Poisson(mean/spread²), mean > 0: independent units with variances spread²·mean.

    A sample has no gradient. ``log_prob`` is differentiable in the mean (the score function), but not in the spread,
    because the lattice of values depends on it.
    """

    has_rsample = False

    def __init__(self, mean: Tensor, spread: Tensor):
        super().__init__(mean, spread)
        self.step = self.spread.detach().square()
        self._poisson = dist.Poisson(self._mean / self.step, validate_args=False)

    @property
    def support(self) -> Constraint:
        return Region(lambda value: self._count(value)[1].all(-1), is_discrete=True)

    @property
    def variance(self) -> Tensor:
        return self.step * self._mean

    def sample(self, sample_shape=Size()):
        return self.step * self._poisson.sample(Size(sample_shape))

    def log_prob(self, value):
        self.check_event(value)
        count, inside = self._count(value)
        return self._poisson.log_prob(count).masked_fill(~inside, -math.inf).sum(-1)

    def _count(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The count N of each unit, and whether the value is on the lattice, up to rounding."""
        ratio = value.detach() / self.step
        count = ratio.round()
        error = torch.finfo(value.dtype).eps * ratio.abs()
        inside = ((ratio - count).abs() <= lattice_tolerance(error)) & (count >= 0) & ratio.isfinite()
        return torch.where(inside, count, 0), inside


def _clamp_to_open_interval(value: Tensor) -> Tensor:
    """Keep a value off 0 and 1, where rounding may have put it and where a Beta density may be infinite."""
    finfo = torch.finfo(value.dtype)
    return value.clamp(finfo.tiny, 1 - finfo.eps / 2)
