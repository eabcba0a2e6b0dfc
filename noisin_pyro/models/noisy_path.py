"""A layer's whole noisy trajectory z_{1:T} as one distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import pyro
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from noisin_pyro.models.scan import Shape, Transition
from noisin_pyro.noise import Family

_EVERYWHERE = constraints.real_vector


class NoisyPath(TorchDistribution):
    """z_{1:T} with z_t ~ ExpFam(mean f(x_{t-1}, z_{t-1}), spread γ) (paper, section 3).

    Batch shape ``(..., B)``, event shape ``(T, H)``, as Pyro's time-series distributions have. Sampling scans forward
    in time; ``log_prob`` is parallel in time, since given z_{1:T} every mean is known. Steps at or beyond a sequence's
    length are sampled but masked in the density.

    Args:
        transition: where the means come from.
        family: the noise.
        spread: γ, ``(..., 1, 1)``.
        lengths: ``(B,)`` integers from 0 to T, or None for T everywhere.
        spread_is_sampled: whether γ is itself a latent of the program.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}  # type: ignore[override]
    has_enumerate_support = False

    def __init__(
        self,
        transition: Transition,
        family: Family,
        spread: Tensor,
        lengths: Tensor | None = None,
        spread_is_sampled: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        self.transition, self.family, self.spread, self.lengths = transition, family, spread, lengths
        self.spread_is_sampled = spread_is_sampled
        self._last: dict[str, Any] = {}  # shared by expanded copies: the memory that belongs to the last sample
        batch_shape = transition.batch_shape
        if spread.dim() > 2:
            batch_shape = torch.broadcast_shapes(batch_shape, spread.shape[:-2])
        super().__init__(batch_shape, transition.event_shape, validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """False for native poisson alone: a discrete law whose parameters depend on the past."""
        return self.family.has_rsample

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """All reals, or (0, 1) for native beta.

        Raises:
            ValueError: where no guide can act on z: for a discrete law, a support that moves with the mean, or padded
                steps, whose density is masked and so improper on the reals. Innovations have neither of the last two.
        """
        if not self.family.has_innovations and not self.family.discrete:
            return constraints.independent(constraints.interval(*self.family.mean_range), 2)
        if not self.family.discrete and self.family.law(self.spread, self.event_shape[1]).support is _EVERYWHERE:
            if self.padding_is_flat:
                raise ValueError(
                    "padded steps of z have no density here, so a guide over them gives no bound: "
                    "use innovations(model), where they keep their prior"
                )
            return constraints.independent(constraints.real, 2)
        reason = "is discrete" if self.family.discrete else "has a support that moves with its mean"
        raise ValueError(
            f"{self.family} noise {reason}, so no guide can act on z: leave the site to the prior, or use "
            + ("a family with a density" if self.family.discrete else "innovations(model)")
        )

    def expand(self, batch_shape: Shape, _instance: NoisyPath | None = None) -> NoisyPath:  # type: ignore[override]
        transition = self.transition.expand(batch_shape)
        new = NoisyPath(transition, self.family, self.spread, self.lengths, self.spread_is_sampled, self._validate_args)
        new._last = self._last
        return new

    def rsample(self, sample_shape: Shape = ()) -> Tensor:  # type: ignore[override]
        """Draw z_{1:T}, ``sample_shape + (..., B, T, H)``, step by step from z_0."""
        shape = torch.Size(sample_shape) + self.batch_shape
        if self.family.has_innovations:
            return self.transport(self.innovation_law(shape).rsample())
        return self.expand(shape).along(lambda _, mean: self.step(mean)())

    def sample(self, sample_shape: Shape = ()) -> Tensor:  # type: ignore[override]
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z_{1:T}) over the real steps, ``(..., B)``; a mass for discrete families.

        Raises:
            ValueError: for a value of another shape, or multiplicative noise around a mean of exactly 0 (an atom).
        """
        if value.shape[-2:] != self.event_shape:
            expected = ", ".join(map(str, self.event_shape))
            raise ValueError(f"value must have shape (..., {expected}), got {tuple(value.shape)}")
        means = _inside(self.family, self.transition.means(value)[0])
        if self.lengths is None:
            return self.family(means, self.spread).log_prob(value).sum(-1)
        real = real_steps(self.lengths, self.event_shape[0])
        # a padded mean may be where there is no density (an atom at 0); 0.5 is in every family's range
        means = torch.where(real.unsqueeze(-1), means, 0.5)
        return torch.where(real, self.family(means, self.spread).log_prob(value), 0.0).sum(-1)

    def step(self, mean: Tensor) -> TorchDistribution:
        """The distribution of one z_t ``(..., B, H)`` around its mean."""
        return step_law(self.family, self.spread.squeeze(-2), mean)

    @property
    def padding_is_flat(self) -> bool:
        """Whether z has padded steps, whose masked density is improper: flat on all reals."""
        return self.lengths is not None and self.family.mean_range[1] == math.inf

    def innovation_law(self, batch_shape: Shape | None = None) -> TorchDistribution:
        """The law of the standardised noise ε_{1:T}: batch ``(..., B)``, event ``(T, H)``, padded steps included."""
        steps, units = self.event_shape
        batch_shape = self.batch_shape if batch_shape is None else torch.Size(batch_shape)
        return self.family.law(self.spread, units).expand((*batch_shape, steps)).to_event(1)

    def transport(self, noise: Tensor) -> Tensor:
        """z_{1:T} from ε_{1:T}, ``(..., B, T, H)`` both; exact for every family whose noise has a law of its own."""
        return self._keep(*self.transition.transport(self.family, self.spread, noise))

    def along(self, draw: Callable[[int, Tensor], Tensor]) -> Tensor:
        """z_{1:T} where z_t = draw(t, mean_t), step by step from t = 0."""
        return self._keep(*self.transition.loop(draw))

    def innovate(self, z: Tensor) -> Tensor:
        """ε_{1:T} from z_{1:T}: the inverse of ``transport``, where no scale is 0."""
        means, _ = self.transition.means(z)
        return (z - means) / self.family.scale(means, self.spread)

    def clean(self) -> Tensor:
        """The deterministic RNN's trajectory h_{1:T}, ``(..., B, T, H)``."""
        return self._keep(*self.transition.clean())

    def last_memory(self, z: Tensor) -> Tensor | None:
        """c_T of the scan that made this very ``z``; None where another made it."""
        return self._last["memory"] if self._last.get("z") is z else None

    def _keep(self, z: Tensor, memory: Tensor | None) -> Tensor:
        self._last.update(z=z, memory=memory)
        return z


def step_law(family: Family, spread: Tensor, mean: Tensor) -> TorchDistribution:
    """p(z_t | z_{t-1}): the noise around the mean ``(..., B, H)`` of one step, γ ``(..., 1)``."""
    return family(_inside(family, mean), spread)


def _inside(family: Family, mean: Tensor) -> Tensor:
    """Keep a saturated cell's mean off the ends of the open interval that a native family needs."""
    low, high = family.mean_range
    if low == -math.inf:
        return mean
    finfo = torch.finfo(mean.dtype)
    return mean.clamp(low + finfo.tiny, high - finfo.eps if high < math.inf else None)


def sample_noisy(
    name: str, law: TorchDistribution, family: Family, padding_is_flat: bool = False, obs: Tensor | None = None
) -> Tensor:
    """A noisy state's sample statement; the site's ``infer`` tells guides and bounds what it is."""
    infer: Any = {"family": family, "padding_is_flat": padding_is_flat}
    return pyro.sample(name, law, obs=obs, infer=infer)


def real_steps(lengths: Tensor, steps: int) -> Tensor:
    """Which of T steps are real: ``(B, T)`` booleans from lengths ``(B,)``."""
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(-1)
