"""Coordinates of ε that can be anywhere: where a guide's affine maps act, and Pyro's automatic guides."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from pyro.distributions import constraints
from torch import Tensor
from torch.distributions import biject_to, transform_to
from torch.distributions.transforms import IndependentTransform, Transform

from noisin_pyro.noise.standardized import OnSimplex, Standardized


def coordinates(law: dist.TorchDistribution) -> Transform:
    """The smooth one-to-one map from u ``(..., d)``, all of R^d, to ε ``(..., H)`` on the support of a law of ε.

    d is H, but H - 1 on a simplex, whose density is over as many coordinates. Rounding off the support's edge is as in
    ``law.log_prob``.

    Args:
        law: that of a family without atoms.
    """
    if isinstance(law, Standardized) and law.coordinates_bend:
        return _Standardizing(law)
    return biject_to(law.support)


class _Standardizing(Transform):
    """u to the raw law's r by Pyro's bijection, and r to ε = (r − E r) / sd r."""

    domain, codomain, bijective = constraints.real_vector, constraints.real_vector, True

    def __init__(self, law: Standardized) -> None:
        super().__init__()
        self.law = law
        raw: Any = biject_to(law.raw.support)
        self._raw: Any = raw if raw.domain.event_dim == 1 else IndependentTransform(raw, 1)

    def _call(self, x: Tensor) -> Tensor:
        return (self._raw(x) - self.law.center) / self.law.unit

    def _inverse(self, y: Tensor) -> Tensor:
        return self._raw.inv(self.law.read(y))

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        law = self.law
        log_unit = law.unit.log().expand(law.unit.shape[:-1] + law.event_shape)[..., : law.coordinates]
        return self._raw.log_abs_det_jacobian(x, self._raw(x)) - log_unit.sum(-1)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self._raw.forward_shape(shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return self._raw.inverse_shape(shape)


@transform_to.register(OnSimplex)
@biject_to.register(OnSimplex)
def _of_simplex(support: OnSimplex) -> Transform:
    return coordinates(support.law)
