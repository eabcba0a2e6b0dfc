"""Families of noise: a law and a form, and the distribution of z that they make (paper, section 3)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from numbers import Real

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import Distribution

from noisin_pyro.noise import laws
from noisin_pyro.noise.exponential_family import ExponentialFamily, view
from noisin_pyro.noise.noisy import Noisy, NoisyBeta, NoisyPoisson
from noisin_pyro.noise.standardized import Standardized, StandardNormal

Interval = tuple[float, float]
ANYWHERE: Interval = (-math.inf, math.inf)


class Family(ABC):
    """A kind of noise: ``family(mean, spread)`` is the distribution of z around ``mean``.

    A subclass with ``name``, ``form`` and one method, ``law``, is complete: z = mean + scale·ε. E[z] = mean, and the
    spread is the standard deviation of the noise (times abs(mean) in the multiplicative form).

    Attributes:
        name: what it is called in messages.
        form: "additive", "multiplicative" or "native".
        discrete: whether the law of z has atoms; then ``log_prob`` is a mass.
        has_rsample: whether a draw passes the gradient to the mean.
        spread_is_pathwise: whether it passes the gradient to the spread as well.
        has_innovations: whether z = mean + scale·ε with a law of ε free of the mean.
        law_ends_at_spread: whether the support of ε is bounded where the spread says (multiplicative and native gamma).
        largest_spread: the spread must be less than this.
        mean_range: the open interval in which the mean must lie.
    """

    name: str
    form: str = "additive"
    discrete: bool = False
    has_rsample: bool = True
    spread_is_pathwise: bool = True
    has_innovations: bool = True
    law_ends_at_spread: bool = False
    largest_spread: float = math.inf
    mean_range: Interval = ANYWHERE

    @abstractmethod
    def law(self, spread: Tensor, size: int) -> dist.TorchDistribution:
        """The law of ε over ``size`` units: mean 0, variance 1, event shape ``(size,)``, ``spread``'s dtype and device.

        Batch shape ``()``, unless the law depends on the spread: then ``spread`` broadcasts against ``(..., size)``
        and the batch shape follows. ``Standardized(raw)`` makes such a law from any other.
        """

    def scale(self, mean: Tensor, spread: Tensor) -> Tensor:
        """The standard deviation of each unit of z, up to sign; dz/dε where the family has innovations."""
        return spread if self.form == "additive" else spread * mean

    def exponential_family(self, spread: float | None = None, size: int = 2) -> ExponentialFamily:
        """The law of one unit before it is standardised, in canonical form (the paper's section 2.2).

        Args:
            spread: where the law depends on it (multiplicative gamma, bernoulli, poisson), and only there.
            size: number of units, for the laws that couple them (categorical, dirichlet).

        Raises:
            ValueError: the law is no exponential family (logistic), or moves with the mean (native beta, poisson).
        """
        raise ValueError(
            f"{self}: no exponential-family view of this law is known (native ones move with the mean, the logistic law"
            " is no exponential family); ask another form or family, noise itself works without one"
        )

    def __call__(self, mean: Tensor, spread: Tensor | float) -> dist.TorchDistribution:
        """The distribution of z.

        Args:
            mean: ``(..., H)``, floating point, within ``mean_range``.
            spread: γ, positive, broadcasts against the mean; the number 0 (not a tensor) means no noise at all.

        Returns:
            A distribution with event shape ``(H,)`` whose mean is ``mean``; for spread 0 a point mass.

        Raises:
            ValueError: a mean or spread outside its range (tensors are looked at while validation is on, as in Pyro),
                or a gradient asked for a spread that cannot have one.
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
        return Noisy(mean, self.scale(mean, spread), law, self.form == "multiplicative")

    def _check(self, mean: Tensor, spread: Tensor) -> None:
        self._check_spread(spread)
        low, high = self.mean_range
        if self.mean_range == ANYWHERE or not _validating():
            return
        outside = ~((mean > low) & (mean < high))
        if bool(outside.any()):
            raise ValueError(
                f"mean: {self} noise needs every mean in ({low:g}, {high:g}), got {mean[outside][0].item():g}; use a "
                'cell whose state stays in there (sigmoid), or form="additive"'
            )

    def _check_spread_number(self, spread: float) -> None:
        if not (isinstance(spread, Real) and 0 < spread < self.largest_spread):
            raise ValueError(
                f"spread: {self} noise needs 0 < spread < {self.largest_spread:g}, got {spread!r}; "
                "the number 0 turns noise off"
            )

    def _check_spread(self, spread: Tensor) -> None:
        if spread.requires_grad and torch.is_grad_enabled() and not self.spread_is_pathwise:
            raise ValueError(
                f"spread: in {self} noise it sits inside a discrete law, so no gradient reaches it and it cannot be "
                'learned; fix it (choose it on a validation set), or use form="additive"'
            )
        if not _validating():
            return
        wrong = ~((spread > 0) & (spread < self.largest_spread))
        if bool(wrong.any()):
            self._check_spread_number(spread[wrong].reshape(-1)[0].item())

    def __str__(self) -> str:
        return self.name if self.form == "additive" else f"{self.name}:{self.form}"

    def __repr__(self) -> str:
        return f"<noise family {self}>"


class Standard(Family):
    """z = mean + scale·ε, where ε is ``raw`` minus its mean, over its standard deviation.

    Args:
        raw: a function of a tensor ``(..., size)`` that returns the law of ``size`` units. The tensor holds zeros, and
            gives shape, dtype and device; or, with ``of_spread``, it holds the spread, and the law's own standard
            deviation over its mean is that spread.
        name, form: as in ``Family``.
        of_spread: whether the law depends on the spread.
        mean_range: as in ``Family``.
        shape: options of the law, passed on to ``raw``.
    """

    def __init__(
        self,
        name: str,
        raw: Callable[..., Distribution],
        form: str = "additive",
        of_spread: bool = False,
        mean_range: Interval = ANYWHERE,
        **shape: float,
    ):
        self.name, self.form, self.mean_range = name, form, mean_range
        self.of_spread = of_spread
        self.shape = shape
        self._raw = raw
        probe = Standardized(self._probe())
        self.discrete, self.joint = probe.discrete, probe.joint
        self.spread_is_pathwise = not (of_spread and self.discrete)
        self.law_ends_at_spread = of_spread and not self.discrete

    def law(self, spread: Tensor, size: int) -> dist.TorchDistribution:
        if self.joint and size == 1:
            raise ValueError(f"size: {self} noise couples a layer's units and is constant on one alone; use 2 or more")
        if not self.of_spread:
            return Standardized(self._raw(spread.new_zeros(size), **self.shape))
        self._check_spread(spread)
        return Standardized(self._raw(spread.expand(torch.broadcast_shapes(spread.shape, (size,))), **self.shape))

    def exponential_family(self, spread: float | None = None, size: int = 2) -> ExponentialFamily:
        if self.of_spread != (spread is not None):
            raise ValueError(
                f"spread: the law of {self} depends on it: pass exponential_family(spread=0.3), say"
                if self.of_spread
                else f"spread: the law of {self} does not depend on it, got {spread!r}; leave it out"
            )
        like = torch.full((size,) if self.joint else (), spread or 0.0, dtype=torch.float64)
        found = view(self._raw(like, **self.shape))
        return found if found is not None else super().exponential_family()

    def _probe(self) -> Distribution:
        """The law of two units; refuses what cannot be standardised."""
        raw = self._raw(torch.full((2,), 0.5 if self.of_spread else 0.0, dtype=torch.float64), **self.shape)
        if not isinstance(raw, Distribution) or raw.batch_shape + raw.event_shape != (2,):
            raise ValueError(
                f"law: expected that of {self.name!r} to turn a tensor of shape (2,) into a distribution over 2 units, "
                f"got {_describe(raw)}; build it from the tensor it is given, as in lambda zeros: Uniform(zeros, 1.0)"
            )
        mean, variance = raw.mean[0].item(), raw.variance[0].item()
        if not (math.isfinite(mean) and 0 < variance < math.inf):
            raise ValueError(
                f"law: that of {self} needs a finite mean and a positive variance, got {mean:g} and {variance:g}; "
                "choose shape options that give it both"
            )
        return raw


class Gaussian(Standard):
    """``Standard`` for the normal law, drawn without the detour by mean and standard deviation."""

    def __init__(self, form: str = "additive"):
        super().__init__("gaussian", laws.gaussian, form)

    def law(self, spread: Tensor, size: int) -> dist.TorchDistribution:
        return StandardNormal(spread.new_zeros(()).expand(size))


class NativeBeta(Family):
    """z ~ Beta with mean h in (0, 1) and variance γ²h(1 − h), 0 < γ < 1."""

    name, form = "beta", "native"
    has_innovations = False
    largest_spread = 1.0
    mean_range = (0.0, 1.0)

    def law(self, spread: Tensor, size: int) -> dist.TorchDistribution:
        raise _no_innovations(self)

    def scale(self, mean: Tensor, spread: Tensor) -> Tensor:
        return spread * (mean * (1 - mean)).sqrt()

    def _distribution(self, mean: Tensor, spread: Tensor) -> dist.TorchDistribution:
        return NoisyBeta(mean, spread)


class NativePoisson(Family):
    """z = γ²·Poisson(h/γ²), h > 0, standard deviation γ√h."""

    name, form = "poisson", "native"
    discrete = True
    has_rsample = False
    spread_is_pathwise = False
    has_innovations = False
    mean_range = (0.0, math.inf)

    def law(self, spread: Tensor, size: int) -> dist.TorchDistribution:
        raise _no_innovations(self)

    def scale(self, mean: Tensor, spread: Tensor) -> Tensor:
        return spread * mean.sqrt()

    def _distribution(self, mean: Tensor, spread: Tensor) -> dist.TorchDistribution:
        return NoisyPoisson(mean, spread)


def _no_innovations(family: Family) -> ValueError:
    return ValueError(
        f"noise: {family} has no law of ε that is free of the mean; call it on mean and spread, or use another form"
    )


def _validating() -> bool:
    return bool(Distribution._validate_args)


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a {value.dtype} tensor of shape {tuple(value.shape)}"
    if isinstance(value, Distribution):
        batch, event = tuple(value.batch_shape), tuple(value.event_shape)
        return f"a {type(value).__name__} of batch shape {batch} and event shape {event}"
    return f"{value!r} ({type(value).__name__})"
