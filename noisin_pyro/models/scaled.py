"""Emissions of series: densities in the units of the data, of whichever values of a step are observed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import Independent, TorchDistribution, constraints
from torch import Tensor
from torch.distributions import transform_to

from noisin_pyro._lookup import BatchError
from noisin_pyro.models._module import ReusableModule
from noisin_pyro.models.read_out import Emission


class Scaled(Emission):
    """An emission of x = loc + scale · y, where y has another emission and values of x that are NaN are missing.

    The density is that of x, in the units of the data: p(x | z) = p(y | z) / Π_d scale_d. Values that are missing are
    left out of it, which for values that are independent given z is the density of those that are observed.

    Args:
        emission: p(y | z), of vectors; it becomes a submodule.
        loc, scale: D numbers each, scales above 0. By default x = y, as for counts, which cannot be scaled.

    Raises:
        ValueError: not an :class:`Emission`, one of classes, numbers other than D, or a scale for values that are not
            real.
    """

    loc: Tensor | None
    scale: Tensor | None

    def __init__(
        self, emission: Emission, loc: Sequence[float] | None = None, scale: Sequence[float] | None = None
    ) -> None:
        ReusableModule.__init__(self)  # its read-out is the other emission's
        if not isinstance(emission, Emission):
            raise ValueError(
                f"emission must be an Emission, got {type(emission).__name__}; if it is a module that returns a "
                "distribution, wrap it first: Scaled(ModuleEmission(module, hidden_size, output_size))"
            )
        size = emission.output_size
        if emission.event_dim != 1:
            raise ValueError(f"emission must be of vectors, got {type(emission).__name__}, which is of single classes")
        self.hidden_size, self.output_size, self.matmul_precision = (
            emission.hidden_size,
            size,
            emission.matmul_precision,
        )
        self.emission = emission
        like = next(emission.parameters()).detach()
        for name, numbers, default in (("loc", loc, 0.0), ("scale", scale, 1.0)):
            given = (
                None
                if loc is None and scale is None
                else like.new_tensor([default] * size if numbers is None else numbers)
            )
            if given is not None and (given.shape != (size,) or not given.isfinite().all()):
                raise ValueError(f"{name} must be {size} finite numbers, one for each value, got {numbers}")
            # not in the state dict: they are the data's, and a run's data.json has them
            self.register_buffer(name, given, persistent=False)
        if self.scale is not None and not (self.scale > 0).all():
            raise ValueError(f"scale must be above 0, got {scale}")
        self.num_parameters = getattr(emission, "num_parameters", 1)
        support = support_of(emission)
        self.filler = _filler(support)
        if self.scale is not None and not is_real(support):
            raise ValueError(
                f"{type(emission).__name__} is not of real values, which alone can be scaled; drop loc and scale"
            )

    @property
    def linear(self) -> Any:
        """The weights of the read-out of y."""
        return self.emission.linear

    @property
    def hidden(self) -> Any:
        """The hidden layer of the read-out."""
        return self.emission.hidden

    def standardized(self, targets: Tensor) -> Tensor:
        """y of x, a possible value where x is missing."""
        y = targets if self.loc is None or self.scale is None else (targets - self.loc) / self.scale
        return y.masked_fill(y.isnan(), self.filler)

    def forward(self, z: Tensor) -> TorchDistribution:
        return ScaledLaw(self.emission(z), self.loc, self.scale, self.filler)


class ScaledLaw(TorchDistribution):
    """The distribution of loc + scale · y, where values that are NaN are left out of the density.

    Args:
        base: the distribution of y, over the last axis.
        loc, scale: ``(D,)``; None for y itself.
        filler: a number in the support of each y_d.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}  # type: ignore[override]
    has_rsample = True

    def __init__(self, base: Any, loc: Tensor | None, scale: Tensor | None, filler: float = 0.0) -> None:
        self.base, self.loc, self.scale, self.filler = base, loc, scale, filler
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)
        self.has_rsample = base.has_rsample

    @property
    def support(self) -> constraints.Constraint:
        return _Support(self)

    @property
    def mean(self) -> Tensor:
        return self._undo(self.base.mean)

    @property
    def variance(self) -> Tensor:
        return self.base.variance if self.scale is None else self.base.variance * self.scale.square()

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        return self._undo(self.base.sample(sample_shape))

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        return self._undo(self.base.rsample(sample_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> ScaledLaw:
        return ScaledLaw(self.base.expand(batch_shape), self.loc, self.scale, self.filler)

    def standardized(self, value: Tensor) -> Tensor:
        """y of x, the filler where x is missing."""
        y = value if self.loc is None or self.scale is None else (value - self.loc) / self.scale
        return torch.where(y.isnan(), self.filler, y)

    def log_prob(self, value: Tensor) -> Tensor:
        missing, y = value.isnan(), self.standardized(value)
        if not _is_factorized(self.base):
            if missing.any():
                raise BatchError(
                    f"targets have single missing values, which {type(self.base).__name__} cannot leave out of its "
                    "density; take an emission with independent values (.to_event(1)), or mark whole steps as missing"
                )
            log_p = self.base.log_prob(y)
            return log_p if self.scale is None else log_p - self.scale.log().sum()
        log_p = self.base.base_dist.log_prob(y)
        if self.scale is not None:
            log_p = log_p - self.scale.log()
        return log_p.masked_fill(missing, 0.0).sum(-1)

    def _undo(self, y: Tensor) -> Tensor:
        return y if self.loc is None or self.scale is None else self.loc + self.scale * y


class _Support(constraints.Constraint):
    """The support of a law of y, for x: values that are missing are in it."""

    event_dim = 1

    def __init__(self, law: ScaledLaw) -> None:
        self.law = law

    @property
    def base_constraint(self) -> Any:
        """As for an independent constraint: the support of y, as values that are scaled can be any."""
        return self.law.base.support

    def check(self, value: Tensor) -> Tensor:
        return self.law.base.support.check(self.law.standardized(value))

    def __repr__(self) -> str:
        return repr(self.law.base.support)


def support_of(emission: Emission) -> Any:
    """The support of single values of an emission of vectors, or of the vectors if they are not independent."""
    support: Any = emission.at_zero().support
    return support.base_constraint if isinstance(support, constraints.independent) else support


def is_in_data_units(model: Any) -> bool:
    """Whether a model's densities are of values that are scaled, and hence in the units of the data."""
    return isinstance(model.emission, Scaled) and model.emission.scale is not None


def is_real(support: Any) -> bool:
    """Whether a support is all real numbers or vectors."""
    return support in (constraints.real, constraints.real_vector)


def _is_factorized(law: Any) -> bool:
    return isinstance(law, Independent) and law.reinterpreted_batch_ndims == 1


def _filler(support: Any) -> float:
    """A value in a support, whose density has a finite gradient; it stands in place of missing ones."""
    try:
        return float(transform_to(support)(torch.zeros(())))
    except NotImplementedError:  # of counts and bits
        return 0.0
