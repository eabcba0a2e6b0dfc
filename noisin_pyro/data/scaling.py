"""Scaling of columns, and the inputs that a model of series reads at each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from noisin_pyro._lookup import known

ScalingKind = Literal["standard", "mean", "none"]


@dataclass(frozen=True)
class Scaling:
    """An affine map of each column, y = (x - loc) / scale.

    Attributes:
        loc, scale: a number for each column, in the units of the data.
    """

    loc: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        if (
            len(self.loc) != len(self.scale)
            or not np.isfinite([*self.loc, *self.scale]).all()
            or min(self.scale, default=1) <= 0
        ):
            raise ValueError(
                f"loc and scale must be finite, as many each, and scale above 0, got {self.loc}, {self.scale}"
            )

    @classmethod
    def fit(cls, columns: np.ndarray, kinds: Sequence[ScalingKind]) -> Self:
        """Fit to the values ``(n, D)`` that are not NaN.

        Args:
            kinds: of each column: ``"standard"`` (subtract the mean, divide by the standard deviation), ``"mean"``
                (divide by the mean of absolute values) or ``"none"``. The divisor of a constant column is 1.

        Raises:
            ValueError: another kind.
        """
        loc, scale = np.zeros(len(kinds)), np.ones(len(kinds))
        for d, (kind, column) in enumerate(zip(kinds, columns.T, strict=True)):
            observed = column[~np.isnan(column)]
            known("scaling", kind, get_args(ScalingKind))
            if not len(observed) or kind == "none":
                continue
            largest = np.abs(observed).max() or 1.0  # so that sums and squares do not overflow
            observed = observed / largest
            if kind == "standard":
                loc[d] = observed.mean() * largest
                # the standard deviation of a constant column is a rounding error
                spread = observed.std()
                scale[d] = spread * largest if spread > 1e-13 else 1.0
            else:
                scale[d] = (np.abs(observed).mean() * largest) or 1.0
        return cls(tuple(loc.tolist()), tuple(scale.tolist()))

    def apply(self, x: Tensor) -> Tensor:
        """y of x, ``(..., D)`` both."""
        return (x - x.new_tensor(self.loc)) / x.new_tensor(self.scale)

    def undo(self, y: Tensor) -> Tensor:
        """x of y, ``(..., D)`` both."""
        return y * y.new_tensor(self.scale) + y.new_tensor(self.loc)


@dataclass(frozen=True)
class InputLayout:
    """The input of each step of a series: values of the step before, which of them are missing, and covariates.

    The input of step t has 2 D + C entries: the D values of step t - 1, scaled, with the last one observed in place of
    a missing one (0 if there is none); D indicators, 1 where the value of step t - 1 is missing; and the C covariates
    of step t, scaled.

    Attributes:
        values, covariates: names of the columns.
        value_scaling, covariate_scaling: their scaling. That of real values is also that of their density.
    """

    values: tuple[str, ...]
    covariates: tuple[str, ...]
    value_scaling: Scaling
    covariate_scaling: Scaling

    def __post_init__(self) -> None:
        for names, scaling in ((self.values, self.value_scaling), (self.covariates, self.covariate_scaling)):
            if len(names) != len(scaling.loc):
                raise ValueError(f"scaling must be of the columns {list(names)}, got {len(scaling.loc)} numbers")

    @property
    def input_size(self) -> int:
        """Number of entries of an input, 2 D + C."""
        return 2 * len(self.values) + len(self.covariates)

    def step(self, previous: Tensor, observed: Tensor, covariates: Tensor | None = None) -> Tensor:
        """Inputs from the values before them, all in the units of the data.

        Args:
            previous: values of step t - 1, or the last ones observed before it, ``(..., D)``; NaN if there is none.
            observed: whether each value of step t - 1 is observed, ``(..., D)``. It is for values that a model draws.
            covariates: covariates of step t, ``(..., C)``; may be left out if C is 0.

        Returns:
            the inputs of step t, ``(..., 2 D + C)``.
        """
        parts = [
            self.value_scaling.apply(previous).nan_to_num(0.0, torch.inf, -torch.inf),
            (~observed).to(previous.dtype),
        ]
        if covariates is not None:
            # in float64, so that large ones such as dates keep their digits
            scaled = self.covariate_scaling.apply(covariates.to(previous.device, torch.float64)).to(previous)
            parts.append(scaled.expand(*previous.shape[:-1], -1))
        elif self.covariates:
            raise ValueError(
                f"covariates must be given, {', '.join(self.covariates)}: shape (..., {len(self.covariates)})"
            )
        return torch.cat(parts, -1)

    def along(self, values: Tensor, covariates: Tensor | None = None) -> Tensor:
        """The inputs of all steps, ``(..., T, 2 D + C)``.

        Args:
            values: ``(..., T, D)``, NaN where missing.
            covariates: ``(..., T, C)``.
        """
        start = torch.full_like(values[..., :1, :], torch.nan)
        before = torch.cat([start, values[..., :-1, :]], -2)
        return self.step(last_observed(before), ~before.isnan(), covariates)


def last_observed(values: Tensor) -> Tensor:
    """Each value, or the last one before it that is not NaN, along the axis -2 of ``(..., T, D)``; NaN before any."""
    steps = torch.arange(values.shape[-2], device=values.device).unsqueeze(-1)
    index = torch.where(values.isnan(), -1, steps).cummax(-2).values
    return values.gather(-2, index.clamp(min=0)).where(index >= 0, torch.nan)
