"""The law of ε over the units of a layer: mean 0 and variance 1, made from any law with a finite mean and variance."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Size, Tensor
from torch.distributions import Distribution, Independent

from noisin_pyro.noise.supports import Constraint, Projection, Region, between, bounds, projector


class UnitDistribution(dist.TorchDistribution):
    """Base class of distributions over the units of a layer: event shape ``(H,)``.

    Parameters are not validated here; the family that builds the distribution does that.
    """

    arg_constraints: ClassVar[dict] = {}  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    has_rsample = True

    def __init__(self, shape: Size):
        super().__init__(shape[:-1], shape[-1:], validate_args=False)

    @classmethod
    def infer_shapes(cls, **arg_shapes: Size) -> tuple[Size, Size]:
        """Batch and event shape for constructor arguments of these shapes; the shape of a law is batch + event."""
        shape = torch.broadcast_shapes(*arg_shapes.values())
        return shape[:-1], shape[-1:]

    @property
    def loc(self) -> Tensor:
        """There is none.

        Raises:
            ValueError: always; Pyro's ``LocScaleReparam`` reads it.
        """
        raise ValueError(
            "noise has no loc and scale for LocScaleReparam; innovations(model), whose noise is standardized, is the "
            "non-centered model: drop the reparametrization"
        )

    def check_event(self, value: Tensor) -> None:
        """Raise a ``ValueError`` if the last axis of ``value`` is not the units; it would be broadcast silently."""
        if value.shape[-1:] != self.event_shape:
            raise ValueError(
                f"value: expected {self.event_shape[0]} units on the last axis, got shape {tuple(value.shape)}; "
                "pass values of shape (..., units)"
            )


class StandardNormal(UnitDistribution):
    """ε ~ N(0, I), sampled with a single call of ``torch.randn``.

    ``like`` gives shape ``(..., size)``, dtype and device.
    """

    discrete = False

    def __init__(self, like: Tensor):
        self._like = like.new_empty(())
        super().__init__(like.shape)

    def expand(self, batch_shape, _instance=None):
        return StandardNormal(self._like.expand(self.shape()).expand(Size(batch_shape) + self.event_shape))

    @property
    def support(self) -> Constraint:
        return constraints.real_vector

    @property
    def mean(self) -> Tensor:
        return self._like.new_zeros(self.shape())  # not expanded: Pyro's messengers make parameters of it

    @property
    def variance(self) -> Tensor:
        return self._like.new_ones(()).expand(self.shape())

    def rsample(self, sample_shape=Size()):
        return torch.randn(self._extended_shape(sample_shape), dtype=self._like.dtype, device=self._like.device)

    def log_prob(self, value):
        self.check_event(value)
        shape = torch.broadcast_shapes(value.shape, self.shape())
        return -0.5 * (value.square() + math.log(2 * math.pi)).expand(shape).sum(-1)


class Standardized(UnitDistribution):
    """ε = (r − E[r]) / sd(r) for a raw law r.

    ``raw`` is either one law per unit, with batch shape ``(..., size)`` and scalar events, or a joint law of all units,
    with batch shape ``(...)`` and event shape ``(size,)``. A discrete raw law must have its support on the integers, or
    be one-hot. ε is then discrete too: ``log_prob`` is the log-probability of the raw value. ``rsample`` exists for
    discrete laws as well: ε itself has no gradient, but z = mean + scale·ε is differentiable in mean and scale.

    ``log_prob`` outside the support is −∞, and neither it nor its gradient is NaN. A law on the simplex has its density
    with respect to the first ``size`` − 1 coordinates, because ε sums to zero.

    Args:
        raw: the raw law.
        raw_std: sd(r); default: from the raw law's variance.
        dtype: of ε; default: the raw law's. Samples and densities are computed in the precision of the raw law.
    """

    def __init__(self, raw: Distribution, raw_std: Tensor | None = None, dtype: torch.dtype | None = None):
        if isinstance(raw, Independent) and len(raw.event_shape) == 1:
            raw = raw.base_dist
        mean = raw.mean
        self._set(raw, mean, raw.variance.sqrt() if raw_std is None else raw_std, dtype or mean.dtype)

    def _set(self, raw: Distribution, raw_mean: Tensor, raw_std: Tensor, dtype: torch.dtype) -> None:
        # log_prob evaluates the raw law on its support only, so the raw law need not validate the value again.
        raw._validate_args = False
        self.raw, self.raw_mean, self.raw_std, self.dtype = raw, raw_mean, raw_std, dtype
        self.discrete = bool(self._raw_support.is_discrete)
        self.joint = len(raw.event_shape) == 1
        super().__init__(raw.batch_shape + raw.event_shape)

    @property
    def _raw_support(self) -> Constraint:
        support = self.raw.support
        assert support is not None
        return support

    def expand(self, batch_shape, _instance=None):
        new = Standardized.__new__(Standardized)
        batch_shape = Size(batch_shape)
        raw = self.raw.expand(batch_shape if self.joint else batch_shape + self.event_shape)
        new._set(raw, self.raw_mean, self.raw_std, self.dtype)
        return new

    @property
    def density_dim(self) -> int:
        """Number of coordinates that the density is with respect to: ``size``, or ``size`` − 1 on the simplex."""
        return self.event_shape[0] - int(isinstance(self._raw_support, type(constraints.simplex)))

    @property
    def is_constrained(self) -> bool:
        """Whether the support is smaller than R^size, so that a bijection from R^d onto it is nonlinear."""
        return self._raw_support not in (constraints.real, constraints.real_vector)

    @property
    def support(self) -> Constraint:
        if not self.is_constrained:
            return constraints.real_vector
        lower, upper = (
            ((b - self.raw_mean) / self.raw_std).to(self.dtype) if b is not None else None
            for b in bounds(self._raw_support)
        )
        if self.density_dim < self.event_shape[0]:
            return StandardizedSimplex(self)
        if self.discrete or self.joint or (lower is None and upper is None):
            return Region(lambda value: self.project(value).inside.all(-1), self.discrete)
        if any(isinstance(bound, Tensor) and bound.requires_grad for bound in (lower, upper)):
            raise ValueError(
                "spread: the support of this noise depends on the spread, and the spread is learned, but Pyro's "
                'automatic guides keep the support of their first call; fix the spread, or use form="additive"'
            )
        return between(lower, upper)

    @property
    def mean(self) -> Tensor:
        return self.raw_mean.new_zeros(self.shape(), dtype=self.dtype)

    @property
    def variance(self) -> Tensor:
        return torch.ones_like(self.raw_mean, dtype=self.dtype).expand(self.shape())

    def rsample(self, sample_shape=Size()):
        return ((self.rsample_raw(sample_shape) - self.raw_mean) / self.raw_std).to(self.dtype)

    def rsample_raw(self, sample_shape: Any = Size()) -> Tensor:
        """A sample of r, without a gradient if the raw law is discrete."""
        return (self.raw.rsample if self.raw.has_rsample else self.raw.sample)(Size(sample_shape))

    def log_prob(self, value, rounding: Tensor | None = None):
        """Log-density of ε, or log-probability if discrete.

        Args:
            value: ε, ``(..., size)``.
            rounding: absolute rounding error of each unit of ``value``, broadcast against it; default: one machine
                epsilon, relative to ``value``. A value outside the support by a few rounding errors counts as inside.
        """
        self.check_event(value)
        log_prob = self._log_prob(self.project(value, rounding))
        if not self.discrete:
            # change of variables: log p(ε) = log p(r) + Σ log sd(r)
            log_std = self.raw_std.log().expand(self.raw_std.shape[:-1] + self.event_shape)
            log_prob = log_prob + log_std[..., : self.density_dim].sum(-1)
        return log_prob.to(torch.promote_types(value.dtype, self.dtype))

    def log_prob_raw(self, raw_value: Tensor, error: Tensor) -> Tensor:
        """Log-density of r, ``(..., size)``, or log-probability if discrete; arguments as in :meth:`project_raw`."""
        return self._log_prob(self.project_raw(raw_value, error))

    def _log_prob(self, projection: Projection) -> Tensor:
        value = projection.value
        # some raw laws compute with parameters from before an expansion
        log_prob = self.raw.log_prob(value.expand(torch.broadcast_shapes(value.shape, self.shape())))
        if self.joint:
            return log_prob.masked_fill(~projection.inside.all(-1), -math.inf)
        return log_prob.masked_fill(~projection.inside, -math.inf).sum(-1)

    def project(self, value: Tensor, rounding: Tensor | None = None) -> Projection:
        """The raw value r = E[r] + sd(r)·ε, moved onto the support where ε is within rounding error of it.

        Elsewhere the value is an arbitrary point of the support, with ``inside`` False. The value is differentiable in
        ε except at the edges of the support. Arguments as in :meth:`log_prob`.
        """
        raw_value = self.raw_mean + self.raw_std * value
        with torch.no_grad():
            input_error = torch.finfo(value.dtype).eps * value.abs()
            if rounding is not None:
                input_error = torch.maximum(input_error, rounding)
            error = self.raw_std * input_error
        return self.project_raw(raw_value, error)

    def project_raw(self, raw_value: Tensor, error: Tensor) -> Projection:
        """:meth:`project` for r itself, where ``error`` is the rounding error of what r is computed from."""
        with torch.no_grad():
            # the operations that compute r round as well
            error = error + torch.finfo(raw_value.dtype).eps * (self.raw_mean.abs() + raw_value.abs())
            error = torch.where(error.isfinite(), error, 0)
            mean = self.raw_mean.expand(raw_value.shape)
        return projector(self._raw_support)(raw_value, error, mean)


class StandardizedSimplex(Region):
    """Support of the ε of a law on the simplex; ``transforms.py`` registers its bijection with ``biject_to``."""

    def __init__(self, law: Standardized):
        self.law = law
        super().__init__(lambda value: law.project(value).inside.all(-1), is_discrete=False)
