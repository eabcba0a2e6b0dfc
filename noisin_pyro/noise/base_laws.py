"""The base laws of the families, before they are standardized.

Each function takes a tensor ``(..., size)`` of zeros, or of the spread for the ``_ratio`` laws, and returns the law of
``size`` units. All parameters are passed as tensors, because a Python number would be copied to the device at every
call. The first line of each docstring is printed in tables of families.
"""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Size, Tensor


def gaussian(zeros: Tensor) -> dist.TorchDistribution:
    """Normal(0, 1)"""
    return dist.Normal(zeros, zeros + 1.0)


def laplace(zeros: Tensor) -> dist.TorchDistribution:
    """Laplace(0, 1)"""
    return dist.Laplace(zeros, zeros + 1.0)


def logistic(zeros: Tensor) -> dist.TorchDistribution:
    """Logistic(0, 1)"""
    return _Logistic(zeros, zeros + 1.0)


def gumbel(zeros: Tensor) -> dist.TorchDistribution:
    """Gumbel(0, 1)"""
    return dist.Gumbel(zeros, zeros + 1.0)


def gamma(zeros: Tensor, concentration: float = 2.0) -> dist.TorchDistribution:
    """Gamma(concentration, 1)"""
    return dist.Gamma(zeros + _positive("concentration", concentration), zeros + 1.0)


def exponential(zeros: Tensor) -> dist.TorchDistribution:
    """Exponential(1)"""
    return dist.Exponential(zeros + 1.0)


def chi2(zeros: Tensor, degrees: float = 3.0) -> dist.TorchDistribution:
    """χ²(degrees)"""
    return _Chi2(zeros + _positive("degrees", degrees))


def beta(zeros: Tensor, concentration: float = 2.0) -> dist.TorchDistribution:
    """Beta(concentration, concentration)"""
    return dist.Beta(zeros + _positive("concentration", concentration), zeros + concentration)


def bernoulli(zeros: Tensor) -> dist.TorchDistribution:
    """±1 with equal probability"""
    return dist.Bernoulli(zeros + 0.5)


def poisson(zeros: Tensor, rate: float = 4.0) -> dist.TorchDistribution:
    """Poisson(rate)"""
    return dist.Poisson(zeros + _positive("rate", rate))


def categorical(zeros: Tensor) -> dist.TorchDistribution:
    """one-hot over the layer's units, equal probabilities"""
    return _UniformOneHot(logits=zeros)


def dirichlet(zeros: Tensor, concentration: float = 1.0) -> dist.TorchDistribution:
    """Dirichlet(concentration, ..., concentration) over the layer's units"""
    return dist.Dirichlet(zeros + _positive("concentration", concentration))


def gamma_ratio(spread: Tensor) -> dist.TorchDistribution:
    """Gamma(1/γ², rate 1/γ²)"""
    return _UnitMeanGamma(spread.pow(-2))


def bernoulli_ratio(spread: Tensor) -> dist.TorchDistribution:
    """Bernoulli(q)/q with q = 1/(1 + γ²): dropout on the state"""
    return _Kept(spread.square())


def poisson_ratio(spread: Tensor) -> dist.TorchDistribution:
    """γ²·Poisson(1/γ²)"""
    return Poisson(spread.pow(-2))


def stirling(k: Tensor) -> Tensor:
    """k log k − k − log Γ(k), by Stirling's series where k is large: the three terms nearly cancel there."""
    series = 0.5 * (k / (2 * math.pi)).log() - (1 / 12 - (1 / 360 - 1 / 1260 / k.square()) / k.square()) / k
    return torch.where(k > 30, series, k * k.log() - k - torch.lgamma(k))  # the next term is below 3e-14


def log_ratio(ratio: Tensor, excess: Tensor) -> Tensor:
    """log(ratio), from excess = ratio − 1 where that has more digits."""
    near = excess.abs() < 0.5
    return torch.where(near, torch.log1p(torch.where(near, excess, 0.0)), ratio.log())


class Poisson(dist.Poisson):
    """torch's log-probability is a difference of terms of size λ log λ."""

    def __init__(self, rate: Tensor) -> None:
        super().__init__(rate, validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return Poisson(self.rate.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        # λⁿ e^−λ / n!, with n! = n Γ(n)
        n = value.clamp(min=1.0)
        excess = (self.rate - n) / n
        log_prob = n * (log_ratio(self.rate / n, excess) - excess) - n.log() + stirling(n)
        return torch.where(value > 0, log_prob, -self.rate)


class _UnitMeanGamma(dist.Gamma):
    """Gamma(k, rate k). torch's log-density is a difference of terms of size k log k."""

    def __init__(self, shape: Tensor, unexpanded: Tensor | None = None) -> None:
        super().__init__(shape, shape, validate_args=False)
        self._shape = shape if unexpanded is None else unexpanded  # fewer values to compute Stirling's series of

    def expand(self, batch_shape, _instance=None):
        return _UnitMeanGamma(self.concentration.expand(batch_shape), self._shape)

    def log_prob(self, value: Tensor) -> Tensor:
        # kᵏ rᵏ⁻¹ e^−kr / Γ(k)
        k, log_value = self._shape, value.log()
        return k * (log_value - (value - 1)) - log_value + stirling(k)


class _Kept(dist.Bernoulli):
    """Bernoulli(1 / (1 + odds)), given the odds of 0. torch's class computes the probability of 0 from that of 1."""

    def __init__(self, odds: Tensor, unexpanded: Tensor | None = None) -> None:
        super().__init__(1 / (1 + odds), validate_args=False)
        self._odds = odds if unexpanded is None else unexpanded

    def expand(self, batch_shape, _instance=None):
        return _Kept(self._odds.expand(self.batch_shape).expand(batch_shape), self._odds)

    def log_prob(self, value: Tensor) -> Tensor:
        return (1 - value) * self._odds.log() - self._odds.log1p()


class _Chi2(dist.Chi2):
    """torch's class passes its rate as a Python number, which is copied to the device."""

    def __init__(self, df: Tensor, validate_args: bool | None = None) -> None:
        dist.Gamma.__init__(self, df / 2, torch.full_like(df, 0.5), validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        return _Chi2(self.df.expand(batch_shape), validate_args=self._validate_args)


class _Logistic(dist.Logistic):
    """Pyro's class samples by inversion of a uniform number that can be exactly 0, and so can return −∞."""

    def rsample(self, sample_shape=Size()):  # pyright: ignore[reportIncompatibleMethodOverride]
        finfo = torch.finfo(self.loc.dtype)
        u = torch.rand(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)
        return self.icdf(u.clamp_(finfo.tiny, 1 - finfo.eps))


class _UniformOneHot(dist.OneHotCategorical):
    """torch's class synchronizes with the device in ``sample``."""

    def sample(self, sample_shape=Size()):  # pyright: ignore[reportIncompatibleMethodOverride]
        shape = self._extended_shape(sample_shape)
        unit = torch.randint(shape[-1], (*shape[:-1], 1), device=self.logits.device)
        return self.logits.new_zeros(shape).scatter_(-1, unit, 1.0)


def _positive(name: str, value: float) -> float:
    if not (isinstance(value, int | float) and 0 < value < math.inf):
        raise ValueError(f"{name}: expected a positive number, got {value!r}")
    return value
