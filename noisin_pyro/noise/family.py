"""Families of noise: a law and a form, which define the distribution of z (section 3 of the paper)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Real

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from noisin_pyro.noise import base_laws
from noisin_pyro.noise.distributions import NoisyBeta, NoisyPoisson, NoisyRatio, NoisyState
from noisin_pyro.noise.exponential_family import ExponentialFamily, canonical_form
from noisin_pyro.noise.standardized import Standardized, StandardNormal

Interval = tuple[float, float]
ANYWHERE: Interval = (-math.inf, math.inf)
MIN_COUNT_SPREAD = 1e-9  # torch samples counts, here of mean 1/γ², as integers of 64 bits, which overflow


class Family(ABC):
    """Base class of families of noise: ``family(mean, spread)`` is the distribution of z around ``mean``.

    A subclass defines ``name``, ``form`` and the method :meth:`law`; then z = mean + scale·ε, so that E[z] = mean and
    the spread is the standard deviation of the noise (times abs(mean) in the multiplicative form).

    Attributes:
        name: name in messages.
        form: "additive", "multiplicative" or "native".
        discrete: whether the law of z is discrete; then ``log_prob`` is a log-probability.
        joint: whether the law couples the units of a layer (categorical, dirichlet).
        has_rsample: whether a sample is differentiable in the mean.
        spread_is_pathwise: whether a sample is differentiable in the spread.
        has_innovations: whether z = mean + scale·ε with a law of ε that does not depend on the mean.
        support_depends_on_spread: whether the support of ε depends on the spread (multiplicative and native gamma).
        min_spread, max_spread: bounds of the spread, exclusive.
        mean_range: the open interval that the mean must be in.
    """

    name: str
    form: str = "additive"
    discrete: bool = False
    joint: bool = False
    has_rsample: bool = True
    spread_is_pathwise: bool = True
    has_innovations: bool = True
    support_depends_on_spread: bool = False
    min_spread: float = 0.0
    max_spread: float = math.inf
    mean_range: Interval = ANYWHERE
    distribution: Callable[..., dist.TorchDistribution] = NoisyState

    @abstractmethod
    def law(self, spread: Tensor, size: int) -> dist.TorchDistribution:
        """The law of ε over ``size`` units, with mean 0 and variance 1.

        ``Standardized(raw)`` makes such a law from any raw law with a finite mean and variance.

        Args:
            spread: γ, which gives dtype and device; broadcasts against ``(..., size)``.
            size: number of units H.

        Returns:
            A distribution with event shape ``(size,)``. Its batch shape is ``()``, unless the law depends on the
            spread; then it is that of the broadcast spread.
        """

    def scale(self, mean: Tensor, spread: Tensor) -> Tensor:
        """Standard deviation of each unit of z, up to sign. It is dz/dε if the family has innovations."""
        return spread if self.form == "additive" else spread * mean

    def exponential_family(self, spread: float | None = None, size: int = 2) -> ExponentialFamily:
        """The law of one unit before it is standardized, in canonical form (section 2.2 of the paper).

        Args:
            spread: γ; required if the law depends on it (multiplicative gamma, bernoulli, poisson), else not allowed.
            size: number of units, for the laws that couple them (categorical, dirichlet).

        Raises:
            ValueError: the law is not an exponential family (logistic), or depends on the mean (native beta, poisson);
                or ``spread`` is missing or superfluous.
        """
        raise ValueError(
            f"{self}: this law has no exponential-family view (the logistic law is not an exponential family; the law "
            "of native beta or poisson noise depends on the mean); use another form or family. Only this view is "
            "missing: the noise itself works"
        )

    def __call__(self, mean: Tensor, spread: Tensor | float) -> dist.TorchDistribution:
        """The distribution of z.

        Args:
            mean: ``(..., H)``, floating point, within ``mean_range``.
            spread: γ, between ``min_spread`` and ``max_spread``; broadcasts against the mean. The number 0 (not a
                tensor) turns noise off.

        Returns:
            A distribution with event shape ``(H,)`` and mean ``mean``; a point mass if the spread is 0.

        Raises:
            ValueError: a mean or spread outside its range (the values of tensors are checked while validation is
                enabled, as in Pyro), or a spread that requires a gradient in a family that cannot give one.
        """
        if not (isinstance(mean, Tensor) and mean.is_floating_point() and mean.dim() > 0):
            raise ValueError(f"mean: expected a floating-point tensor of shape (..., units), got {_describe(mean)}")
        if not isinstance(spread, Tensor):
            if spread == 0:
                return dist.Delta(mean, event_dim=1)
            self._check_spread_number(spread)
            spread = mean.new_full((), spread)
        self._check(mean, spread)
        return self._distribution(mean, spread)

    def _distribution(self, mean: Tensor, spread: Tensor) -> dist.TorchDistribution:
        law = self.law(spread, mean.shape[-1])
        return self.distribution(mean, self.scale(mean, spread), law, self.form == "multiplicative")

    def _check(self, mean: Tensor, spread: Tensor) -> None:
        self._check_spread(spread)
        low, high = self.mean_range
        if self.mean_range == ANYWHERE or not _validation_enabled():
            return
        outside = ~((mean > low) & (mean < high))
        if bool(outside.any()):
            raise ValueError(
                f"mean: {self} noise needs every mean in ({low:g}, {high:g}), got {mean[outside][0].item():g}; use a "
                'cell whose state is always in that range (sigmoid), or form="additive"'
            )

    def _check_spread_number(self, spread: float) -> None:
        if not (isinstance(spread, Real) and self.min_spread < spread < self.max_spread):
            raise ValueError(
                f"spread: {self} noise needs {self.min_spread:g} < spread < {self.max_spread:g}, got {spread!r}; "
                "pass the number 0 to turn noise off"
            )

    def _check_spread(self, spread: Tensor) -> None:
        if spread.requires_grad and torch.is_grad_enabled() and not self.spread_is_pathwise:
            raise ValueError(
                f"spread: in {self} noise it is a parameter of a discrete law, so it has no pathwise gradient and "
                'cannot be learned; fix it (choose it on a validation set), or use form="additive"'
            )
        if not _validation_enabled():
            return
        outside = ~((spread > self.min_spread) & (spread < self.max_spread))
        if bool(outside.any()):
            self._check_spread_number(spread[outside].reshape(-1)[0].item())

    def __str__(self) -> str:
        return self.name if self.form == "additive" else f"{self.name}:{self.form}"

    def __repr__(self) -> str:
        return f"<noise family {self}>"


class StandardizedFamily(Family):
    """z = mean + scale·ε, where ε is a raw law r standardized: ε = (r − E[r]) / sd(r).

    Args:
        name, form: as in ``Family``.
        raw: a function from a tensor ``(..., size)`` to the raw law of ``size`` units. The tensor holds zeros and gives
            shape, dtype and device. With ``depends_on_spread`` it holds the spread γ, and the raw law must have
            sd(r) = γ E[r].
        depends_on_spread: whether the raw law depends on the spread.
        mean_range: as in ``Family``.
        **shape: shape options of the law, passed to ``raw``.
    """

    def __init__(
        self,
        name: str,
        raw: Callable[..., Distribution],
        form: str = "additive",
        depends_on_spread: bool = False,
        mean_range: Interval = ANYWHERE,
        **shape: float,
    ):
        self.name, self.form, self.mean_range = name, form, mean_range
        self.depends_on_spread = depends_on_spread
        self.shape = shape
        self._raw = raw
        probe = Standardized(self._probe())
        self.discrete, self.joint = probe.discrete, probe.joint
        self.spread_is_pathwise = not (depends_on_spread and self.discrete)
        self.support_depends_on_spread = depends_on_spread and not self.discrete
        if depends_on_spread:
            self.distribution = NoisyRatio
            self.min_spread = MIN_COUNT_SPREAD if isinstance(self._probe(), base_laws.Poisson) else 0.0

    def law(self, spread: Tensor, size: int) -> dist.TorchDistribution:
        if self.joint and size == 1:
            raise ValueError(f"size: {self} noise couples a layer's units and is constant on one; use 2 or more")
        if not self.depends_on_spread:
            # torch samples gamma and Dirichlet laws in float32 and float64 only
            zeros = spread.new_zeros(size, dtype=torch.promote_types(spread.dtype, torch.float32))
            return Standardized(self._raw(zeros, **self.shape), dtype=spread.dtype)
        self._check_spread(spread)
        # float32 loses the digits of a small γ in 1/γ² and in 1 + γ²
        gamma = spread.double().expand(torch.broadcast_shapes(spread.shape, (size,)))
        raw = self._raw(gamma, **self.shape)
        return Standardized(raw, gamma * raw.mean, spread.dtype)

    def exponential_family(self, spread: float | None = None, size: int = 2) -> ExponentialFamily:
        if self.depends_on_spread != (spread is not None):
            raise ValueError(
                f"spread: the law of {self} depends on it; pass a value, for example exponential_family(spread=0.3)"
                if self.depends_on_spread
                else f"spread: the law of {self} does not depend on it, got {spread!r}; leave it out"
            )
        like = torch.full((size,) if self.joint else (), spread or 0.0, dtype=torch.float64)
        form = canonical_form(self._raw(like, **self.shape))
        return super().exponential_family() if form is None else form

    def _probe(self) -> Distribution:
        """The raw law of two units. Raises a ``ValueError`` if it cannot be standardized."""
        raw = self._raw(torch.full((2,), 0.5 if self.depends_on_spread else 0.0, dtype=torch.float64), **self.shape)
        if not isinstance(raw, Distribution) or raw.batch_shape + raw.event_shape != (2,):
            raise ValueError(
                f"law: that of {self.name!r} must return a distribution over 2 units for a tensor of shape (2,), "
                f"got {_describe(raw)}; build it from its argument, as in lambda zeros: Uniform(zeros, 1.0)"
            )
        mean, variance = raw.mean[0].item(), raw.variance[0].item()
        if not (math.isfinite(mean) and 0 < variance < math.inf):
            raise ValueError(
                f"law: {self} noise needs a law with finite mean and positive, finite variance, got {mean:g} and "
                f"{variance:g}; choose other shape options"
            )
        return raw


class Gaussian(StandardizedFamily):
    """Gaussian noise. Its base law is standard already, so it is sampled without standardization."""

    def __init__(self, form: str = "additive"):
        super().__init__("gaussian", base_laws.gaussian, form)

    def law(self, spread: Tensor, size: int) -> dist.TorchDistribution:
        return StandardNormal(spread.new_zeros(()).expand(size))


class NativeFamily(Family):
    """Base class of families whose law of z depends on the mean, so that they have no innovations."""

    form = "native"
    has_innovations = False

    def law(self, spread: Tensor, size: int) -> dist.TorchDistribution:
        raise ValueError(
            f"noise: {self} noise has no law of ε that is independent of the mean; call family(mean, spread), or use "
            "another form"
        )

    def _distribution(self, mean: Tensor, spread: Tensor) -> dist.TorchDistribution:
        return self.distribution(mean, spread)


class NativeBeta(NativeFamily):
    """z ~ Beta with mean h in (0, 1) and variance γ²h(1 − h), 0 < γ < 1."""

    name = "beta"
    max_spread = 1.0
    mean_range = (0.0, 1.0)
    distribution = NoisyBeta

    def scale(self, mean: Tensor, spread: Tensor) -> Tensor:
        return spread * (mean * (1 - mean)).sqrt()


class NativePoisson(NativeFamily):
    """z = γ²·Poisson(h/γ²), h > 0, standard deviation γ√h."""

    name = "poisson"
    min_spread = MIN_COUNT_SPREAD
    discrete = True
    has_rsample = False
    spread_is_pathwise = False
    mean_range = (0.0, math.inf)
    distribution = NoisyPoisson

    def scale(self, mean: Tensor, spread: Tensor) -> Tensor:
        return spread * mean.sqrt()


def _validation_enabled() -> bool:
    return bool(Distribution._validate_args)


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    if isinstance(value, Distribution):
        batch, event = tuple(value.batch_shape), tuple(value.event_shape)
        return f"a {type(value).__name__} of batch shape {batch} and event shape {event}"
    return f"{value!r} ({type(value).__name__})"
