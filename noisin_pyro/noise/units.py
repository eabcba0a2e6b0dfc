"""What every distribution here is: one over the last axis, the units of a layer."""

from __future__ import annotations

from typing import ClassVar

import pyro.distributions as dist
from torch import Size, Tensor

ONE = Size()


class OverUnits(dist.TorchDistribution):
    """A distribution with event shape ``(H,)``, whose parameters are checked by the family that makes it."""

    arg_constraints: ClassVar[dict] = {}  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    has_rsample = True

    def __init__(self, shape: Size):
        super().__init__(shape[:-1], shape[-1:], validate_args=False)

    def check_event(self, value: Tensor) -> None:
        """Refuse a value whose last axis would be broadcast over the units."""
        if value.shape[-1:] != self.event_shape:
            raise ValueError(
                f"value: expected {self.event_shape[0]} units on the last axis, got shape {tuple(value.shape)}; "
                "pass values of shape (..., units)"
            )
