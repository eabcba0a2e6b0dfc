"""The bijection from unconstrained coordinates to ε. The named guides and Pyro's automatic guides act on these."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import biject_to, transform_to
from torch.distributions.transforms import IndependentTransform, Transform

from noisin_pyro.noise.standardized import Standardized, StandardizedSimplex


def biject_to_support(law: dist.TorchDistribution) -> Transform:
    """The smooth bijection from u in R^d, ``(..., d)``, to ε, ``(..., H)``, on the support of a law of ε.

    d is H, or H - 1 on a simplex. An ε outside the support by no more than its rounding error is moved onto it, as in
    ``law.log_prob``.

    Args:
        law: the law of ε of a continuous family, ``family.law(spread, size)``.
    """
    if isinstance(law, Standardized) and law.is_constrained:
        return _StandardizingTransform(law)
    return biject_to(law.support)


class _StandardizingTransform(Transform):
    """u to the raw law's r by Pyro's bijection, then r to ε = (r − E[r]) / sd(r)."""

    domain, codomain, bijective = constraints.real_vector, constraints.real_vector, True

    def __init__(self, law: Standardized, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.law = law
        raw: Any = biject_to(law.raw.support)
        self._raw: Any = raw if raw.domain.event_dim == 1 else IndependentTransform(raw, 1)

    def with_cache(self, cache_size: int = 1) -> Transform:
        return self if self._cache_size == cache_size else _StandardizingTransform(self.law, cache_size)

    def _call(self, x: Tensor) -> Tensor:
        return (self._raw(x) - self.law.raw_mean) / self.law.raw_std

    def _inverse(self, y: Tensor) -> Tensor:
        return self._raw.inv(self.law.project(y).value)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        law = self.law
        log_std = law.raw_std.log().expand(law.raw_std.shape[:-1] + law.event_shape)[..., : law.density_dim]
        return self._raw.log_abs_det_jacobian(x, self._raw(x)) - log_std.sum(-1)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self._raw.forward_shape(shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self._raw.inverse_shape(shape)


@transform_to.register(StandardizedSimplex)
@biject_to.register(StandardizedSimplex)
def _biject_to_simplex(support: StandardizedSimplex) -> Transform:
    return biject_to_support(support.law)
