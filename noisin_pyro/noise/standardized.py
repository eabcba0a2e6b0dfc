"""The law of ε: a vector of `size` units with mean 0 and variance 1, made from any law that has a mean and a variance."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Size, Tensor
from torch.distributions import Distribution, Independent

from .supports import Reading, Region, bounds, check_event, reader


class StandardNormal(dist.TorchDistribution):
    """ε ~ N(0, I) over the last axis: one fill of random numbers, no other work.

    `like` gives shape `(..., size)`, dtype and device.
    """

    arg_constraints = {}
    support = constraints.real_vector
    has_rsample = True
    discrete = False

    def __init__(self, like: Tensor):
        self._like = like.new_empty(())
        super().__init__(like.shape[:-1], like.shape[-1:], validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return StandardNormal(self._like.expand(Size(batch_shape) + self.event_shape))

    def rsample(self, sample_shape=Size()):
        return torch.randn(self._extended_shape(sample_shape), dtype=self._like.dtype, device=self._like.device)

    def log_prob(self, value):
        check_event(value, self.event_shape)
        shape = torch.broadcast_shapes(value.shape, self.shape())
        return -0.5 * (value.square() + math.log(2 * math.pi)).expand(shape).sum(-1)

    @property
    def mean(self) -> Tensor:
        return self._like.new_zeros(()).expand(self.shape())

    @property
    def variance(self) -> Tensor:
        return self._like.new_ones(()).expand(self.shape())


class Standardized(dist.TorchDistribution):
    """ε = (r − E r) / sd r for a raw law r over the last axis.

    `raw` is either one law per unit, batch shape `(..., size)` and scalar events, or a joint law of all units,
    batch shape `(...)` and event shape `(size,)`. A discrete raw law must live on the integers (or be one-hot). ε is then
    discrete too, `log_prob` is the mass of the pre-image, and `rsample` still exists: a draw of ε passes no gradient of
    its own, and z = mean + scale·ε passes those of mean and scale.

    `log_prob` outside the support is −∞, without NaN in value or gradient. A law on the simplex has its density over
    the first size − 1 coordinates (ε sums to zero).
    """

    arg_constraints = {}
    has_rsample = True

    def __init__(self, raw: Distribution):
        if isinstance(raw, Independent) and len(raw.event_shape) == 1:
            raw = raw.base_dist
        # log_prob is only ever asked inside the support, so the raw law need not look again
        raw._validate_args = False
        self.raw = raw
        self.center, self.unit = raw.mean, raw.variance.sqrt()
        shape = raw.batch_shape + raw.event_shape
        super().__init__(shape[:-1], shape[-1:], validate_args=False)

    def expand(self, batch_shape, _instance=None):
        new = self._get_checked_instance(Standardized, self.__new__(type(self)))
        batch_shape = Size(batch_shape)
        new.raw = self.raw.expand(batch_shape if self.joint else batch_shape + self.event_shape)
        new.raw._validate_args = False
        new.center, new.unit = self.center, self.unit
        dist.TorchDistribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        return new

    @property
    def joint(self) -> bool:
        return len(self.raw.event_shape) == 1

    @property
    def discrete(self) -> bool:
        return _support(self.raw).is_discrete

    @property
    def coordinates(self) -> int:
        """How many coordinates the density is over: `size`, or `size` − 1 on the simplex."""
        return self.event_shape[0] - isinstance(_support(self.raw), type(constraints.simplex))

    @property
    def support(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        raw = _support(self.raw)
        if raw in (constraints.real, constraints.real_vector):
            return constraints.real_vector
        if raw.is_discrete or self.joint:
            return Region(lambda value: self._read(value).inside.all(-1), raw.is_discrete)
        lower, upper = ((b - self.center) / self.unit if b is not None else None for b in bounds(raw))
        if upper is None:
            return constraints.independent(constraints.greater_than(lower), 1)
        if lower is None:
            return constraints.independent(constraints.less_than(upper), 1)
        return constraints.independent(constraints.interval(lower, upper), 1)

    @property
    def mean(self) -> Tensor:
        return torch.zeros_like(self.center).expand(self.shape())

    @property
    def variance(self) -> Tensor:
        return torch.ones_like(self.center).expand(self.shape())

    def rsample(self, sample_shape=Size()):
        draw = self.raw.rsample if self.raw.has_rsample else self.raw.sample
        return (draw(Size(sample_shape)) - self.center) / self.unit

    def log_prob(self, value, rounding: Tensor | None = None):
        """Log-density, or log-mass if discrete, of ε.

        `rounding` is how far `value` may be from the number that was meant (absolute, per unit; default: one rounding
        of `value` itself). A `value` outside the support by no more than that counts as inside.
        """
        check_event(value, self.event_shape)
        read = self._read(value, rounding)
        log_prob = self.raw.log_prob(read.value)
        if not self.joint:
            log_prob = log_prob.masked_fill(~read.inside, -math.inf).sum(-1)
        else:
            log_prob = log_prob.masked_fill(~read.inside.all(-1), -math.inf)
        if self.discrete:
            return log_prob
        return log_prob + self.unit.log().expand(self.unit.shape[:-1] + self.event_shape)[..., : self.coordinates].sum(-1)

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
        return reader(_support(self.raw))(raw_value, error, center)


def _support(raw: Distribution) -> constraints.Constraint:
    support = raw.support
    assert isinstance(support, torch.distributions.constraints.Constraint)
    return support
