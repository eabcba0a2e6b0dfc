"""Series of measurements: values with gaps, covariates, and the inputs that a model reads."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from noisin_pyro.data.columns import check_precision
from noisin_pyro.data.scaling import InputLayout, ScalingKind
from noisin_pyro.data.sequences import Sequences
from noisin_pyro.data.series_format import Columns, SeriesFormat, Table


class Series(Sequences):
    """Series of measurements as sequences: the values of each step are predicted from those before it.

    The input of a step is what :class:`InputLayout` makes; its target is the values of the step, in the units of the
    data. Where all values of a step are missing, its target is masked. Where some are, these are NaN in the target, and
    :class:`~noisin_pyro.models.Scaled` leaves them out of the density.

    Attributes:
        values: all values, ``(N, T, D)`` in the units of the data, NaN where missing and in padding.
        covariates: ``(N, T, C)`` in the units of the data, 0 in padding, always float64.
        ids: a label for each series.
        times: the times of each series, indices of pandas ``(T,)``; None if there are none.
        format: how inputs are made.

    Args:
        table: the series.
        format: their format, which is that of the model's training data.
        history: number of steps at the start of each series that are read but not scored.
    """

    _of_each_row = (*Sequences._of_each_row, "values", "covariates", "ids", "times")

    def __init__(self, table: Table, format: SeriesFormat, history: Sequence[int] | None = None) -> None:
        values = pad_sequence([torch.from_numpy(v) for v in table.values], True, torch.nan)
        covariates = pad_sequence([torch.from_numpy(c) for c in table.covariates], True)
        lengths = torch.tensor([len(v) for v in table.values])
        steps = torch.arange(values.shape[1])
        scored = (~values.isnan()).any(-1) & (steps >= torch.tensor(history or [0] * len(lengths)).unsqueeze(1))
        if not scored.any():
            raise ValueError("values must have at least one that is scored, got none; give longer or more series")
        is_whole = bool((scored == (steps < lengths.unsqueeze(1))).all())
        targets = _filled(values).nan_to_num()
        super().__init__(format.layout.along(values, covariates), targets, lengths, None if is_whole else scored)
        partial = scored.unsqueeze(-1) & values.isnan()
        self.targets = self.targets.masked_fill(partial, torch.nan)
        self.values, self.covariates, self.format = values, covariates, format
        self.ids, self.times = table.ids, table.times

    def __repr__(self) -> str:
        covariates = f"; covariates {', '.join(map(str, self.layout.covariates))}" if self.layout.covariates else ""
        return f"{super().__repr__()[:-1]}; values {', '.join(map(str, self.layout.values))}{covariates})"

    @property
    def layout(self) -> InputLayout:
        """How inputs are made from values and covariates."""
        return self.format.layout

    def with_history(self) -> Self:
        """The same series, with all observed values as targets, those of the history too."""
        whole, observed = copy.copy(self), ~self.values.isnan()
        whole.mask = observed.any(-1) & ~self.beyond
        # single missing values stay NaN, those of masked steps do not
        whole.targets = _filled(self.values).where(~whole.mask.unsqueeze(-1), self.values)
        whole._host_counts = whole.mask.sum(1).cpu()
        return whole

    def until(self, lengths: Tensor) -> Self:
        part = super().until(lengths)
        part.values = self.values.masked_fill(part.beyond.unsqueeze(-1), torch.nan)
        if self.times is not None:
            part.times = [own[:stop] for own, stop in zip(self.times, part._host_lengths.tolist(), strict=True)]
        return part

    def windows(self, size: int) -> Self:
        """The series cut into sequences of at most ``size`` steps, without those in which nothing is scored.

        Each starts from the initial state, and its first input has the values of the step before. They have no times.
        """
        count = -(-self.inputs.shape[1] // size)
        lengths = (self.lengths.unsqueeze(1) - size * torch.arange(count)).clamp(0, size).flatten()
        mask = torch.arange(size) < lengths.unsqueeze(1)
        mask = mask if self.mask is None else mask & _cut(self.mask, count, size)
        rows = mask.any(1).nonzero().flatten()
        part = copy.copy(self)
        for name in ("inputs", "targets", "values", "covariates"):
            setattr(part, name, _cut(getattr(self, name), count, size)[rows])
        part.lengths = part._host_lengths = lengths[rows]
        part.mask, part._host_counts = None if self.mask is None else mask[rows], mask[rows].sum(1)
        part.ids, part.times = [self.ids[row // count] for row in rows.tolist()], None
        return part

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """Copy to ``device``, with values converted to ``dtype`` if it is given.

        Logs a warning where values lose digits that matter.

        Raises:
            ValueError: values beyond the range of ``dtype``.
        """
        if dtype is not None:
            scale = self.layout.value_scaling.scale
            for name, column, unit in zip(self.layout.values, self.values.unbind(-1), scale, strict=True):
                check_precision(name, column, unit, dtype)
        moved = super().to(device, dtype)
        moved.covariates = self.covariates.to(device)  # without rounding, until they are scaled
        return moved


def make_series(
    table: Table, columns: Columns, format: SeriesFormat | None, scaling: ScalingKind | None, dtype: torch.dtype | None
) -> Series:
    """The series of a table, in a format that is given or fitted to it."""
    dtype = floating_point(dtype)
    if format is None:
        format = SeriesFormat.fit(table, columns, scaling=scaling)
    elif scaling is not None:
        raise ValueError(f"scaling {scaling!r} has no effect with a format, which has its own; leave one of them out")
    elif (format.columns.values, format.columns.covariates) != (columns.values, columns.covariates):
        expected = [*format.columns.values, *format.columns.covariates]
        raise ValueError(
            f"values and covariates must be those of the format, {expected}, got "
            f"{[*columns.values, *columns.covariates]}; give the same columns, or no format"
        )
    return Series(table, format).to("cpu", dtype)


def floating_point(dtype: torch.dtype | None) -> torch.dtype:
    """The dtype, or torch's default.

    Raises:
        ValueError: one of integers.
    """
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype must be a floating-point type, got {dtype}; use torch.float32 or torch.float64")
    return dtype


def _filled(values: Tensor) -> Tensor:
    """The values with the first one observed of each column, which is a possible one, in place of NaN."""
    columns = values.flatten(0, 1)
    first = columns.gather(0, (~columns.isnan()).to(torch.uint8).argmax(0, keepdim=True))
    return torch.where(values.isnan(), first, values)


def _cut(x: Tensor, count: int, size: int) -> Tensor:
    """``(N, T, ...)`` as ``(N * count, size, ...)``, padded by the last step, whose values are possible ones."""
    padding = x[:, -1:].expand(-1, count * size - x.shape[1], *x.shape[2:])
    return torch.cat([x, padding], 1).unflatten(1, (count, size)).flatten(0, 1)
