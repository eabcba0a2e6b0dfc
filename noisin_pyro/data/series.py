"""Series of measurements: values with gaps, covariates, and the inputs that a model reads."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from noisin_pyro.data.columns import check_precision, numbers
from noisin_pyro.data.scaling import InputLayout, Scaling, ScalingKind
from noisin_pyro.data.sequences import Sequences

logger = logging.getLogger("noisin_pyro")

TIME_DIFFERENCE = "time difference"
_SCALINGS = {"bernoulli": "none", "poisson": "mean", "negative-binomial": "mean"}


@dataclass(frozen=True)
class Columns:
    """The columns of a table, and how its rows become steps.

    Attributes:
        id, time: the columns that name a row's series and its time; None if there is none.
        values, covariates: the columns that are predicted, and those that are known in advance.
        frequency: step of the regular grid of times: an offset of pandas (``"D"``), or a number. None: rows are steps.
        time_difference: whether the time since the row before is one more covariate; then rows are steps.
    """

    values: tuple[str, ...]
    covariates: tuple[str, ...] = ()
    id: str | None = None
    time: str | None = None
    frequency: str | float | None = None
    time_difference: bool = False


@dataclass(frozen=True)
class Table:
    """Series of different lengths, in the units of the data.

    Attributes:
        values: T steps of D values of each series, ``(T, D)`` float64, NaN where missing.
        covariates: ``(T, C)`` float64.
        ids: a label for each series.
        times: the times of each series, indices of pandas ``(T,)``; None if there are none.
    """

    values: list[np.ndarray]
    covariates: list[np.ndarray]
    ids: list[Any]
    times: list[Any] | None = None

    def part(self, stops: Sequence[int]) -> Table:
        """The steps of each series up to these, without series that have none."""
        rows = [i for i, stop in enumerate(stops) if stop > 0]
        cut = [[part[i][: stops[i]] for i in rows] for part in (self.values, self.covariates, self.times) if part]
        return Table(cut[0], cut[1], [self.ids[i] for i in rows], cut[2] if self.times else None)


@dataclass(frozen=True)
class SeriesFormat:
    """What a model has to know of its series: how tables are read and inputs are made. Part of a run.

    Attributes:
        columns: the columns of its table.
        layout: makes inputs.
        emission: the emission that the training values suggest: ``"bernoulli"`` if they are zeros and ones,
            ``"poisson"`` if they are counts, else ``"gaussian"``.
    """

    columns: Columns
    layout: InputLayout
    emission: str

    @classmethod
    def fit(cls, table: Table, columns: Columns, emission: str | None = None, scaling: str | None = None) -> Self:
        """The format of training data.

        Args:
            emission: by default that which the values suggest.
            scaling: of the values: ``"standard"``, ``"mean"`` or ``"none"``; by default none for the emission
                ``"bernoulli"``, the mean for counts (``"poisson"``, ``"negative-binomial"``), and else standard.

        Raises:
            ValueError: a column without any value.
        """
        values, covariates = (np.concatenate(part) for part in (table.values, table.covariates))
        for name, column in zip(columns.values, values.T, strict=True):
            if np.isnan(column).all():
                raise ValueError(f"column {name!r} has no values among {len(column)} steps; leave it out")
        guess = suggested_emission(values)
        kind: Any = scaling or _SCALINGS.get(emission or guess, "standard")
        names = columns.covariates + ((TIME_DIFFERENCE,) if columns.time_difference else ())
        kinds: list[ScalingKind] = ["none" if _are_bits(column) else "standard" for column in covariates.T]
        layout = InputLayout(
            columns.values, names, Scaling.fit(values, [kind] * len(columns.values)), Scaling.fit(covariates, kinds)
        )
        return cls(columns, layout, guess)


class Series(Sequences):
    """Series of measurements as sequences: the values of each step are predicted from those before it.

    The input of a step is what :class:`InputLayout` makes; its target is the values of the step, in the units of the
    data. Where all values of a step are missing, its target is masked. Where some are, these are NaN in the target, and
    :class:`~noisin_pyro.models.Scaled` leaves them out of the density.

    Attributes:
        values: all values, ``(N, T, D)`` in the units of the data, NaN where missing and in padding.
        covariates: ``(N, T, C)`` in the units of the data, 0 in padding.
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
        super().__init__(
            format.layout.along(values, covariates), values.nan_to_num(), lengths, None if is_whole else scored
        )
        partial = scored.unsqueeze(-1) & values.isnan()
        self.targets = self.targets.masked_fill(partial, torch.nan)
        self.values, self.covariates, self.format = values, covariates, format
        self.ids, self.times = table.ids, table.times

    @property
    def layout(self) -> InputLayout:
        """How inputs are made from values and covariates."""
        return self.format.layout

    def with_history(self) -> Self:
        """The same series, with all observed values as targets, those of the history too."""
        whole, observed = copy.copy(self), ~self.values.isnan()
        whole.mask = observed.any(-1)
        # single missing values stay NaN, those of masked steps do not
        whole.targets = self.values.where(whole.mask.unsqueeze(-1), 0.0)
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
        mask = torch.arange(size) < lengths.unsqueeze(1) if self.mask is None else _cut(self.mask, count, size)
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
        return super().to(device, dtype)


def from_arrays(
    values: Any,
    covariates: Any = None,
    *,
    ids: Sequence[Any] | None = None,
    format: SeriesFormat | None = None,
    scaling: ScalingKind | None = None,
    value_names: Sequence[str] | None = None,
    covariate_names: Sequence[str] | None = None,
    dtype: torch.dtype | None = None,
) -> Series:
    """Make series from arrays.

    Args:
        values: what is predicted, NaN where missing: a list with an array or tensor ``(T,)`` or ``(T, D)`` for each
            series, or one array ``(N, T, D)``.
        covariates: what is known in advance, in the same form and of the same lengths; may not be missing.
        ids: a label for each series; default: their numbers from 0.
        format: that of a model's training data, ``train.format``; by default it is fitted to these values.
        scaling: ``"standard"``, ``"mean"`` or ``"none"``; by default as for :meth:`SeriesFormat.fit`.
        value_names, covariate_names: names of the columns.
        dtype: of the tensors; default: torch's default.

    Raises:
        ValueError: other shapes or types, infinite values, no value at all, or covariates that are missing.
    """
    arrays = _list_of_arrays("values", values)
    width = arrays[0].shape[1]
    names = tuple(value_names or (("value",) if width == 1 else (f"value_{d}" for d in range(1, width + 1))))
    others = [np.zeros((len(each), 0)) for each in arrays]
    if covariates is not None:
        others = _list_of_arrays("covariates", covariates)
        if [len(each) for each in others] != [len(each) for each in arrays]:
            raise ValueError("covariates must have as many series and steps as values; give one row for each step")
    own = tuple(covariate_names or (f"covariate_{c}" for c in range(1, others[0].shape[1] + 1)))
    for argument, given, parts in (("value_names", names, arrays), ("covariate_names", own, others)):
        if len(given) != parts[0].shape[1] or len(set(given)) < len(given):
            raise ValueError(f"{argument} must be {parts[0].shape[1]} different names, got {list(given)}")
    labels = list(range(len(arrays))) if ids is None else list(ids)
    if len(labels) != len(arrays) or len(set(labels)) < len(labels):
        raise ValueError(f"ids must be {len(arrays)} different labels, got {labels}")
    table = Table(
        [_numbers(names, each) for each in arrays], [_numbers(own, each, known=True) for each in others], labels
    )
    return make_series(table, Columns(names, own), format, scaling, dtype)


def make_series(
    table: Table, columns: Columns, format: SeriesFormat | None, scaling: ScalingKind | None, dtype: torch.dtype | None
) -> Series:
    """The series of a table, in a format that is given or fitted to it."""
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
    return Series(table, format).to("cpu", dtype or torch.get_default_dtype())


def split(
    table: Table, by: Literal["time", "series"], valid: float, test: float
) -> tuple[tuple[Table, Sequence[int] | None], ...]:
    """The training, validation and test parts of a table, each with its history: steps that are read but not scored.

    Args:
        by: ``"time"``: the last steps of each series are for test and those before them for validation, with all steps
            before as history. ``"series"``: whole series, the last ones for test.
        valid, test: their fractions of the steps, or of the series; at least one each.

    Raises:
        ValueError: too few steps or series, or fractions that leave none for training.
    """
    if not (valid > 0 and test > 0 and valid + test < 1):
        raise ValueError(f"valid fraction and test fraction must be above 0 and below 1 together, got {valid}, {test}")

    def ends(count: int) -> tuple[int, int, int]:
        held_out = [max(1, round(count * fraction)) for fraction in (valid, test)]
        return count - sum(held_out), count - held_out[1], count

    if by == "series":
        first, second, last = ends(len(table.ids))
        if first < 1:
            raise ValueError(f"split by series needs at least 3 series, got {last}; split in time")
        all_stops = [len(each) for each in table.values]
        spans = ((0, first), (first, second), (second, last))
        return tuple((table.part([n if a <= i < b else 0 for i, n in enumerate(all_stops)]), None) for a, b in spans)
    all_ends = [ends(len(each)) for each in table.values]
    short = [str(label) for label, (first, *_) in zip(table.ids, all_ends, strict=True) if first < 1]
    if short:
        raise ValueError(
            f"split in time needs at least 3 steps of each series, but {', '.join(short[:3])} has fewer; leave "
            f"{'it' if len(short) == 1 else 'such series'} out, or split by series"
        )
    train, before_test, stops = ([each[k] for each in all_ends] for k in range(3))
    return (table.part(train), None), (table.part(before_test), train), (table.part(stops), before_test)


def _cut(x: Tensor, count: int, size: int) -> Tensor:
    """``(N, T, ...)`` as ``(N * count, size, ...)``, with zeros at the end."""
    padding = [0, 0] * (x.dim() - 2) + [0, count * size - x.shape[1]]
    return torch.nn.functional.pad(x, padding).unflatten(1, (count, size)).flatten(0, 1)


def suggested_emission(values: np.ndarray) -> str:
    """The emission that values ``(n, D)`` suggest."""
    observed = values[~np.isnan(values)]
    if _are_bits(observed):
        return "bernoulli"
    return "poisson" if ((observed >= 0) & (observed == np.floor(observed))).all() else "gaussian"


def _are_bits(values: np.ndarray) -> bool:
    return bool(np.isin(values[~np.isnan(values)], (0.0, 1.0)).all())


def _list_of_arrays(argument: str, given: Any) -> list[np.ndarray]:
    """A list of arrays ``(T, D)`` of any dtype."""
    parts = given if isinstance(given, list | tuple) else [given] if getattr(given, "ndim", None) != 3 else list(given)
    try:
        arrays = [_array(part) for part in parts]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument} must be arrays of numbers, got {type(given).__name__} ({error})") from error
    is_list = isinstance(given, list | tuple) or getattr(given, "ndim", None) == 3
    shapes = [each.shape for each in arrays]
    if not is_list or not arrays or {each.ndim for each in arrays} - {1, 2}:
        raise ValueError(
            f"{argument} must be a list of arrays (T,) or (T, D), or one array (N, T, D), got "
            f"{f'shapes {shapes[:3]}' if is_list else f'one of shape {shapes[0]}'}; put a single series into a list"
        )
    arrays = [each[:, None] if each.ndim == 1 else each for each in arrays]
    if len({each.shape[1] for each in arrays}) > 1 or not all(map(len, arrays)):
        raise ValueError(
            f"{argument} must have at least one step in each series, and columns as many in all, got {shapes[:3]}; "
            "leave empty series out"
        )
    return arrays


def _array(part: Any) -> np.ndarray:
    if isinstance(part, Tensor):
        part = part.detach().cpu()
        part = part.double() if part.is_floating_point() else part  # numpy has no bfloat16
    return np.asarray(part)


def _numbers(names: Sequence[str], array: np.ndarray, known: bool = False) -> np.ndarray:
    columns = [numbers(name, column, known) for name, column in zip(names, array.T, strict=True)]
    return np.stack(columns, 1) if columns else np.zeros((len(array), 0))
