"""The law of ε over the units of a layer: mean 0 and variance 1, made from any law that has a mean and a variance."""

from __future__ import annotations

import math

import torch
from pyro.distributions import constraints
from torch import Size, Tensor
from torch.distributions import Distribution, Independent

from noisin_pyro.noise.supports import Constraint, Reading, Region, between, bounds, reader
from noisin_pyro.noise.units import ONE, OverUnits


class StandardNormal(OverUnits):
    """ε ~ N(0, I): one fill of random numbers, no other work.

    ``like`` gives shape ``(..., size)``, dtype and device.
    """

    discrete = False

    def __init__(self, like: Tensor):
        self._like = like.new_empty(())
        super().__init__(like.shape)

    def expand(self, batch_shape, _instance=None):
        return StandardNormal(self._like.expand(Size(batch_shape) + self.event_shape))

    @property
    def support(self) -> Constraint:
        return constraints.real_vector

    @property
    def mean(self) -> Tensor:
        return self._like.new_zeros(()).expand(self.shape())

    @property
    def variance(self) -> Tensor:
        return self._like.new_ones(()).expand(self.shape())

    def rsample(self, sample_shape=ONE):
        return torch.randn(self._extended_shape(sample_shape), dtype=self._like.dtype, device=self._like.device)

    def log_prob(self, value):
        self.check_event(value)
        shape = torch.broadcast_shapes(value.shape, self.shape())
        return -0.5 * (value.square() + math.log(2 * math.pi)).expand(shape).sum(-1)


class Standardized(OverUnits):
    """ε = (r − E r) / sd r for a raw law r.

    ``raw`` is either one law per unit, batch shape ``(..., size)`` and scalar events, or a joint law of all units,
    batch shape ``(...)`` and event shape ``(size,)``. A discrete raw law must live on the integers, or be one-hot. ε is
    then discrete too, ``log_prob`` is the mass of the pre-image, and ``rsample`` still exists: a draw of ε passes no
    gradient of its own, while z = mean + scale·ε passes those of mean and scale.

    ``log_prob`` outside the support is −∞, without NaN in value or gradient. A law on the simplex has its density over
    the first ``size`` − 1 coordinates, since ε sums to zero.
    """

    def __init__(self, raw: Distribution):
        if isinstance(raw, Independent) and len(raw.event_shape) == 1:
            raw = raw.base_dist
        self._set(raw, raw.mean, raw.variance.sqrt())

    def _set(self, raw: Distribution, center: Tensor, unit: Tensor) -> None:
        # log_prob is only ever asked inside the support, so the raw law need not look again
        raw._validate_args = False
        assert raw.support is not None
        self.raw, self.center, self.unit = raw, center, unit
        self._raw_support: Constraint = raw.support
        self.discrete = bool(raw.support.is_discrete)
        self.joint = len(raw.event_shape) == 1
        super().__init__(raw.batch_shape + raw.event_shape)

    def expand(self, batch_shape, _instance=None):
        new = Standardized.__new__(Standardized)
        batch_shape = Size(batch_shape)
        new._set(self.raw.expand(batch_shape if self.joint else batch_shape + self.event_shape), self.center, self.unit)
        return new

    @property
    def coordinates(self) -> int:
        """How many coordinates the density is over: ``size``, or ``size`` − 1 on the simplex."""
        return self.event_shape[0] - isinstance(self._raw_support, type(constraints.simplex))

    @property
    def coordinates_bend(self) -> bool:
        """Whether the support is less than all of R^size, so that a map from all of R^d to it is no straight one."""
        return self._raw_support not in (constraints.real, constraints.real_vector)

    @property
    def support(self) -> Constraint:
        raw = self._raw_support
        if raw in (constraints.real, constraints.real_vector):
            return constraints.real_vector
        lower, upper = ((b - self.center) / self.unit if b is not None else None for b in bounds(raw))
        if self.coordinates < self.event_shape[0]:
            return OnSimplex(self)
        if self.discrete or self.joint or (lower is None and upper is None):
            return Region(lambda value: self._read(value).inside.all(-1), self.discrete)
        if any(isinstance(bound, Tensor) and bound.requires_grad for bound in (lower, upper)):
            raise ValueError(
                "the support of this noise ends where its spread says, and the spread is learned; Pyro's automatic "
                'guides keep the support that they saw first: fix the spread, or use form="additive"'
            )
        return between(lower, upper)

    @property
    def mean(self) -> Tensor:
        return torch.zeros_like(self.center).expand(self.shape())

    @property
    def variance(self) -> Tensor:
        return torch.ones_like(self.center).expand(self.shape())

    def rsample(self, sample_shape=ONE):
        draw = self.raw.rsample if self.raw.has_rsample else self.raw.sample
        return (draw(Size(sample_shape)) - self.center) / self.unit

    def log_prob(self, value, rounding: Tensor | None = None):
        """Log-density, or log-mass if discrete, of ε.

        ``rounding`` is how far ``value`` may be from the number that was meant (absolute, per unit; default: one
        rounding of ``value`` itself). A ``value`` outside the support by a few of these counts as inside.
        """
        self.check_event(value)
        raw_value, inside = self._read(value, rounding)
        log_prob = self.raw.log_prob(raw_value)
        if self.joint:
            log_prob = log_prob.masked_fill(~inside.all(-1), -math.inf)
        else:
            log_prob = log_prob.masked_fill(~inside, -math.inf).sum(-1)
        if self.discrete:
            return log_prob
        log_unit = self.unit.log().expand(self.unit.shape[:-1] + self.event_shape)
        return log_prob + log_unit[..., : self.coordinates].sum(-1)

    def read(self, value: Tensor) -> Tensor:
        """The raw value behind ε, on the support and off its edges; the gradient passes, except at the edges."""
        return self._read(value).value

    def _read(self, value: Tensor, rounding: Tensor | None = None) -> Reading:
        """The raw value behind ε: on the support where ε is within rounding of it, anywhere harmless elsewhere."""
        raw_value = self.center + self.unit * value
        with torch.no_grad():
            machine = torch.finfo(value.dtype).eps
            own = machine * value.abs()
            error = self.unit * (own if rounding is None else torch.maximum(own, rounding))
            # the multiplication and the addition round once more each
            error = error + machine * (self.center.abs() + raw_value.abs())
            error = torch.where(error.isfinite(), error, 0)
            center = self.center.expand(raw_value.shape)
        return reader(self._raw_support)(raw_value, error, center)


class OnSimplex(Region):
    """Where the ε of a law on the simplex lives; Pyro's ``biject_to`` knows it (``coordinates.py``)."""

    def __init__(self, law: Standardized):
        self.law = law
        super().__init__(lambda value: law._read(value).inside.all(-1), is_discrete=False)
