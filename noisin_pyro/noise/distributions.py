"""Distributions of the noisy state z around its mean."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Size, Tensor

from noisin_pyro.noise.base_laws import Poisson, log_ratio, stirling
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

    Attributes:
        mean_error: absolute error of the mean where it is computed in another way than for the sample of z. A value
            outside the support by a few such errors counts as inside.
    """

    mean_error: float = 0.0

    def __init__(self, mean: Tensor, scale: Tensor, law: dist.TorchDistribution, multiplicative: bool = False):
        shape = torch.broadcast_shapes(mean.shape, scale.shape, law.shape())
        self._mean, self.scale = mean.expand(shape), scale.expand(shape)
        self.law = law.expand(shape[:-1])
        self.multiplicative = multiplicative
        super().__init__(shape)

    def expand(self, batch_shape, _instance=None):
        shape = Size(batch_shape) + self.event_shape
        new = type(self)(self._mean.expand(shape), self.scale.expand(shape), self.law, self.multiplicative)
        new.mean_error = self.mean_error
        return new

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
            return Region(lambda value: self.log_prob(value) > -math.inf, law_support.is_discrete)
        return between(*(None if b is None else self._mean + self.scale * b for b in bounds(unit_support)))

    def rsample(self, sample_shape=Size()):
        return self._mean + self.scale * self.law.rsample(Size(sample_shape))

    def log_prob(self, value):
        self.check_event(value)
        if self.multiplicative and bool((self.scale == 0).any()):
            dtype = self._mean.dtype
            in_half = f", or float32, since {dtype} rounds small means to 0" if dtype.itemsize == 2 else ""
            raise ValueError(
                "mean: multiplicative noise around a mean of 0 is exactly 0 (an atom), so z has no density there; use "
                f'form="additive", or the innovations view, whose density is that of ε{in_half}'
            )
        # An infinite z is replaced before it meets the scale: its gradient would be 0·∞ = NaN.
        finite = value.isfinite()
        value = torch.where(finite, value, 0)
        with torch.no_grad():  # z was rounded when it was computed
            rounding = torch.finfo(value.dtype).eps * (self._mean.abs() + value.abs()) + self.mean_error
        log_prob = self._log_prob(value, rounding).to(torch.promote_types(value.dtype, self._mean.dtype))
        return log_prob.masked_fill(~finite.all(-1), -math.inf)

    def _log_prob(self, value: Tensor, rounding: Tensor) -> Tensor:
        """log p of finite values with these rounding errors."""
        epsilon, abs_scale = (value - self._mean) / self.scale, self.scale.abs()
        if isinstance(self.law, Standardized):
            # divided by the scale, the rounding error grows as the scale shrinks
            log_prob, density_dim = self.law.log_prob(epsilon, rounding / abs_scale), self.law.density_dim
            discrete = self.law.discrete
        else:
            log_prob, density_dim = self.law.log_prob(epsilon), epsilon.shape[-1]
            discrete = self.law.support.is_discrete
        if discrete:
            return log_prob
        # change of variables: log p(z) = log p(ε) − Σ log |scale|
        return log_prob - abs_scale.log()[..., :density_dim].sum(-1)


class NoisyRatio(NoisyState):
    """z = mean·r / E[r], where r is the raw law of independent units with sd(r) = spread·E[r].

    This is z = mean + spread·mean·ε, computed from r. ε has lost the digits of an r near 0.
    """

    law: Standardized

    @property
    def support(self) -> Constraint:
        if self.law.discrete or self.multiplicative:
            return super().support
        ratio = self._mean / self.law.raw_mean.to(self._mean.dtype)
        return between(*(None if b is None else b * ratio for b in bounds(self.law.raw.support)))

    def rsample(self, sample_shape: Any = Size()):
        return (self._mean * (self.law.rsample_raw(sample_shape) / self.law.raw_mean)).to(self._mean.dtype)

    def _log_prob(self, value: Tensor, rounding: Tensor) -> Tensor:
        slope = self.law.raw_mean / self._mean  # dr/dz
        log_prob = self.law.log_prob_raw(slope * value, slope.detach().abs() * rounding)
        return log_prob if self.law.discrete else log_prob + slope.abs().log().sum(-1)


class NativeState(UnitDistribution):
    """Base class of distributions of z with independent units that are defined by mean and spread, ``(..., H)``.

    They compute in float64, because 1/γ² − 1 and densities lose the digits of a small γ in float32.
    """

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

    The concentrations are a = mean·ν and b = (1 − mean)·ν with ν = 1/spread² − 1.
    """

    def __init__(self, mean: Tensor, spread: Tensor):
        super().__init__(mean, spread)
        h, gamma = self._mean.double(), self.spread.double()
        self._nu = (1 - gamma) * (1 + gamma) / gamma.square()
        self._a, self._b = h * self._nu, (1 - h) * self._nu

    @property
    def support(self) -> Constraint:
        return constraints.independent(constraints.unit_interval, 1)

    @property
    def variance(self) -> Tensor:
        return self.spread.square() * self._mean * (1 - self._mean)

    def rsample(self, sample_shape=Size()):
        shape = self._extended_shape(sample_shape)
        logit = _log_gamma_sample(self._a, shape) - _log_gamma_sample(self._b, shape)
        return _clamp_to_open_interval(logit.sigmoid().to(self._mean.dtype))

    def log_prob(self, value):
        self.check_event(value)
        inside = (value >= 0) & (value <= 1)
        z = _clamp_to_open_interval(torch.where(inside, value, 0.5)).double()
        h, a, b = self._mean.double(), self._a, self._b
        # z^(a−1) (1 − z)^(b−1) Γ(ν) / (Γ(a) Γ(b)), with a = hν and b = (1 − h)ν in Stirling's form of Γ
        log_prob = a * log_ratio(z / h, (z - h) / h) + b * log_ratio((1 - z) / (1 - h), (h - z) / (1 - h))
        log_prob = log_prob - z.log() - (1 - z).log() + stirling(a) + stirling(b) - stirling(self._nu)
        dtype = torch.promote_types(value.dtype, self._mean.dtype)
        return log_prob.masked_fill(~inside, -math.inf).sum(-1).to(dtype)


class NoisyPoisson(NativeState):
    """z = spread²·N with N ~ Poisson(mean/spread²), mean > 0: independent units with variances spread²·mean.

    A sample has no gradient. ``log_prob`` is differentiable in the mean (the score function), but not in the spread,
    because the lattice of values depends on it.
    """

    has_rsample = False

    def __init__(self, mean: Tensor, spread: Tensor):
        super().__init__(mean, spread)
        self.step = self.spread.detach().double().square()
        self._poisson = Poisson(self._mean / self.step)

    @property
    def support(self) -> Constraint:
        return Region(lambda value: self._count(value)[1].all(-1), is_discrete=True)

    @property
    def variance(self) -> Tensor:
        return (self.step * self._mean).to(self._mean.dtype)

    def sample(self, sample_shape=Size()):
        return (self.step * self._poisson.sample(Size(sample_shape))).to(self._mean.dtype)

    def log_prob(self, value):
        self.check_event(value)
        count, inside = self._count(value)
        log_prob = self._poisson.log_prob(count).masked_fill(~inside, -math.inf).sum(-1)
        return log_prob.to(torch.promote_types(value.dtype, self._mean.dtype))

    def _count(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The count N of each unit, and whether the value is on the lattice, up to rounding."""
        ratio = value.detach() / self.step
        count = ratio.round()
        error = torch.finfo(value.dtype).eps * ratio.abs()
        inside = ((ratio - count).abs() <= lattice_tolerance(error)) & (count >= 0) & ratio.isfinite()
        return torch.where(inside, count, 0), inside


def _log_gamma_sample(shape: Tensor, size: Size) -> Tensor:
    """log g with g ~ Gamma(shape, 1), which would underflow for a small shape.

    g = g' u^(1/shape) with g' ~ Gamma(shape + 1, 1) and u uniform (Marsaglia and Tsang 2000).
    """
    shape = shape.expand(size)
    boosted: Any = dist.Gamma(shape + 1, torch.ones_like(shape), validate_args=False).rsample()
    return boosted.log() + (1 - torch.rand_like(shape)).log() / shape


def _clamp_to_open_interval(value: Tensor) -> Tensor:
    """Keep a value off 0 and 1, where rounding may have put it and where a Beta density may be infinite."""
    finfo = torch.finfo(value.dtype)
    return value.clamp(finfo.tiny, 1 - finfo.eps / 2)
