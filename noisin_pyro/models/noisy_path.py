"""A layer's whole noisy trajectory z_{1:T} as one distribution."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pyro
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from noisin_pyro.noise import Family
from noisin_pyro.noise.distributions import NoisyState
from noisin_pyro.recurrence.transition import Shape, Transition


@dataclass(frozen=True)
class SiteInfo:
    """What guides, bounds and posteriors have to know of a sample site beside its distribution (see :func:`site_info`).

    Attributes:
        family: the noise, at the site of a noisy state or of its innovations; otherwise None.
        padding_is_flat: whether the site holds padded steps, whose masked density is improper.
        computed: the value, where a view computes it from other sites instead of sampling it; otherwise None.
    """

    family: Family | None = None
    padding_is_flat: bool = False
    computed: Tensor | None = None

    def as_infer(self) -> Any:
        """The ``infer`` argument of a sample statement."""
        return {"noisin": self}


def site_info(site: Any) -> SiteInfo:
    """The :class:`SiteInfo` of a site of a trace; one without entries for a site that this package did not make."""
    return site["infer"].get("noisin", SiteInfo())


class _MemoryOfDraw:
    """The last trajectory that a path computed, with c_T, which only its scan knows and which is costly to recompute.

    A site's value may also come from a condition, a replayed trace or a guide, and a path can be drawn from more than
    once. So the memory is asked for with the trajectory at hand, and handed out for that tensor only.
    """

    def __init__(self) -> None:
        self._z: Tensor | None = None
        self._memory: Tensor | None = None

    def record(self, z: Tensor, memory: Tensor | None) -> None:
        self._z, self._memory = z, memory

    def of(self, z: Tensor) -> Tensor | None:
        return self._memory if self._z is z else None

    def __reduce__(self) -> Any:
        return _MemoryOfDraw, ()  # empty in a copy, whose trajectories are other tensors


class NoisyPath(TorchDistribution):
    """z_{1:T} with z_t ~ ExpFam(mean f(x_{t-1}, z_{t-1}), spread γ) (paper, section 3).

    Batch shape ``(..., B)``, event shape ``(T, H)``, as Pyro's time-series distributions have. Sampling scans forward
    in time. ``log_prob`` is parallel in time, since every mean is known given z_{1:T}. Steps at or beyond a sequence's
    length are sampled but masked in the density.

    Args:
        transition: the means.
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
        self._memory_of_draw = _MemoryOfDraw()  # shared with expanded copies, one of which a plate draws from
        batch_shape = transition.batch_shape
        if spread.dim() > 2:
            batch_shape = torch.broadcast_shapes(batch_shape, spread.shape[:-2])
        super().__init__(batch_shape, transition.event_shape, validate_args=validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """False for native poisson only, a discrete distribution whose parameters depend on the past."""
        return self.family.has_rsample

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """All reals, or (0, 1) for native beta.

        Raises:
            ValueError: where no guide can act on z: for a discrete family, a support that moves with the mean, or
                padded steps, whose masked density is improper on the reals. Innovations have neither of the last two.
        """
        if not self.family.has_innovations and not self.family.discrete:
            return constraints.independent(constraints.interval(*self.family.mean_range), 2)
        real_vector = constraints.real_vector  # a constant, so compared by identity
        if not self.family.discrete and self.family.law(self.spread, self.event_shape[1]).support is real_vector:
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

    @property
    def mean(self) -> Tensor:
        """There is none in closed form, nor a ``variance`` or ``loc``: each z_t depends on the noise before it.

        Raises:
            ValueError: always; Pyro's reparametrizations and hierarchical guides read these.
        """
        raise ValueError(
            "a noisy trajectory has no mean, variance or loc in closed form, so it cannot be reparametrized by these "
            "(LocScaleReparam, AutoHierarchicalNormalMessenger): use innovations(model), whose noise is standardized"
        )

    variance = loc = mean  # pyright: ignore[reportIncompatibleMethodOverride]

    def expand(self, batch_shape: Shape, _instance: NoisyPath | None = None) -> NoisyPath:  # type: ignore[override]
        transition = self.transition.expand(batch_shape)
        new = NoisyPath(transition, self.family, self.spread, self.lengths, self.spread_is_sampled, self._validate_args)
        new._memory_of_draw = self._memory_of_draw
        return new

    @classmethod
    def infer_shapes(cls, **arg_shapes: Shape) -> tuple[torch.Size, torch.Size]:
        """Batch and event shape for constructor arguments of these shapes, that of the transition being its means'.

        Raises:
            ValueError: without the transition's shape.
        """
        if "transition" not in arg_shapes:
            given = ", ".join(arg_shapes) or "no shapes"
            raise ValueError(f"infer_shapes: transition=(..., batch, time, units) is required, got {given}")
        shape = torch.broadcast_shapes(arg_shapes["transition"], arg_shapes.get("spread", ()))
        return shape[:-2], shape[-2:]

    def rsample(self, sample_shape: Shape = ()) -> Tensor:  # type: ignore[override]
        """Draw z_{1:T}, ``sample_shape + (..., B, T, H)``, step by step from z_0.

        Raises:
            NotImplementedError: if ``has_rsample`` is False.
        """
        if not self.has_rsample:
            raise NotImplementedError(f"{self.family} noise has no pathwise gradient; use sample()")
        return self._draw(sample_shape)

    def sample(self, sample_shape: Shape = ()) -> Tensor:  # type: ignore[override]
        with torch.no_grad():
            return self._draw(sample_shape)

    def _draw(self, sample_shape: Shape) -> Tensor:
        shape = torch.Size(sample_shape) + self.batch_shape
        if self.family.has_innovations:
            return self.transport(self.innovation_law(shape).rsample())
        return self.expand(shape).along(lambda _, mean: self.step(mean)())

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(z_{1:T}) over the real steps, ``(..., B)``; a mass for discrete families.

        Raises:
            ValueError: for a value of another shape or dtype, or multiplicative noise around a mean of exactly 0 (an
                atom).
        """
        if value.shape[-2:] != self.event_shape:
            expected = ", ".join(map(str, self.event_shape))
            raise ValueError(f"value must have shape (..., {expected}), got {tuple(value.shape)}")
        if not value.is_floating_point() or not _broadcast(value.shape[:-2], self.batch_shape):
            raise ValueError(
                f"value must be floating-point, with batch dimensions that broadcast with {tuple(self.batch_shape)}, "
                f"got {value.dtype} of shape {tuple(value.shape)}; pass trajectories of the sequences of this path"
            )
        if value.dtype != self.spread.dtype and not torch.is_autocast_enabled(value.device.type):
            raise ValueError(f"value must have the dtype of the layer, {self.spread.dtype}, got {value.dtype}")
        means, _ = self.transition.means(value, self.family)
        real = None if self.lengths is None else real_steps(self.lengths, self.event_shape[0])
        if real is not None:
            # At a padded step the mean may be one without a density (an atom at 0); 0.5 is in every family's range.
            means = torch.where(real.unsqueeze(-1), means, 0.5)
        log_prob = step_law(self.family, self.spread, means, self._mean_error).log_prob(value)
        return (log_prob if real is None else torch.where(real, log_prob, 0.0)).sum(-1)

    def step(self, mean: Tensor) -> TorchDistribution:
        """The distribution of one z_t ``(..., B, H)`` around its mean."""
        return step_law(self.family, self.spread.squeeze(-2), mean, self._mean_error)

    @property
    def _mean_error(self) -> float:
        return self.transition.mean_error(self.family)

    @property
    def padding_is_flat(self) -> bool:
        """Whether z has padded steps, whose masked density is improper: flat on all reals."""
        return self.lengths is not None and self.family.mean_range[1] == math.inf

    def innovation_law(self, batch_shape: Shape | None = None) -> TorchDistribution:
        """The distribution of ε_{1:T}, padded steps included: batch shape ``(..., B)``, event shape ``(T, H)``."""
        steps, units = self.event_shape
        batch_shape = self.batch_shape if batch_shape is None else torch.Size(batch_shape)
        return self.family.law(self.spread, units).expand((*batch_shape, steps)).to_event(1)

    def transport(self, noise: Tensor) -> Tensor:
        """z_{1:T} from ε_{1:T}, both ``(..., B, T, H)``, for families that have innovations."""
        return self._keep(*self.transition.transport(self.family, self.spread, noise))

    def along(self, draw: Callable[[int, Tensor], Tensor]) -> Tensor:
        """z_{1:T} where z_t = draw(t, mean_t), step by step from t = 0."""
        return self._keep(*self.transition.loop(draw))

    def innovate(self, z: Tensor) -> Tensor:
        """ε_{1:T} from z_{1:T}: the inverse of ``transport``, where no scale is 0."""
        means, _ = self.transition.means(z, self.family)
        return (z - means) / self.family.scale(means, self.spread)

    def clean(self) -> Tensor:
        """The deterministic RNN's trajectory h_{1:T}, ``(..., B, T, H)``."""
        return self._keep(*self.transition.clean())

    def last_memory(self, z: Tensor) -> Tensor | None:
        """c_T of the trajectory ``z``, if it is the one that this path computed last; None for any other tensor."""
        return self._memory_of_draw.of(z)

    def _keep(self, z: Tensor, memory: Tensor | None) -> Tensor:
        self._memory_of_draw.record(z, memory)
        return z


def _broadcast(one: Shape, other: Shape) -> bool:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)


def step_law(family: Family, spread: Tensor, mean: Tensor, mean_error: float = 0.0) -> TorchDistribution:
    """p(z_t | z_{t-1}): the noise around the mean ``(..., B, H)`` of one step, γ ``(..., 1)``.

    Args:
        family: the noise.
        spread, mean: γ and the mean.
        mean_error: absolute error of the mean, if z was drawn around one that was computed in another way.
    """
    law = family(_inside(family, mean), spread)
    if isinstance(law, NoisyState):
        law.mean_error = mean_error
    return law


def _inside(family: Family, mean: Tensor) -> Tensor:
    """Clamp a saturated cell's mean to the open interval that a native family needs."""
    low, high = family.mean_range
    if low == -math.inf:
        return mean
    finfo = torch.finfo(mean.dtype)
    return mean.clamp(low + finfo.tiny, high - finfo.eps if high < math.inf else None)


def sample_noisy(
    name: str, law: TorchDistribution, family: Family, padding_is_flat: bool = False, obs: Tensor | None = None
) -> Tensor:
    """The sample statement of a noisy state or its innovations, with a :class:`SiteInfo`."""
    return pyro.sample(name, law, obs=obs, infer=SiteInfo(family, padding_is_flat).as_infer())


def real_steps(lengths: Tensor, steps: int) -> Tensor:
    """Which of T steps are real: ``(B, T)`` booleans from lengths ``(B,)``."""
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(-1)
