"""Tables of series: their columns, and what a model has to know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from noisin_pyro.data.columns import EXACT
from noisin_pyro.data.scaling import InputLayout, Scaling, ScalingKind

TIME_DIFFERENCE = "time difference"
_SCALINGS = {"bernoulli": "none", "poisson": "mean", "negative-binomial": "mean"}


@dataclass(frozen=True)
class Columns:
    """The columns of a table, and how its rows become steps.

    Attributes:
        id, time: the columns that name a row's series and its time; None if there is none.
        values, covariates: the columns that are predicted, and those that are known in advance.
        frequency: step of the regular grid of times: an offset of pandas (``"D"``), ``"1 month"``, or a number. None:
            rows are steps.
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
            ``"poisson"`` or ``"negative-binomial"`` if they are counts, the latter if a column's variance is more than
            twice its mean, else ``"gaussian"``.
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
    if short and len(table.ids) == 1:
        raise ValueError(f"split in time needs at least 3 steps, got {len(table.values[0])}; give a longer series")
    if short:
        raise ValueError(
            f"split in time needs at least 3 steps of each series, but {', '.join(short[:3])} has fewer; leave "
            f"{'it' if len(short) == 1 else 'such series'} out, or split by series"
        )
    train, before_test, stops = ([each[k] for each in all_ends] for k in range(3))
    return (table.part(train), None), (table.part(before_test), train), (table.part(stops), before_test)


def suggested_emission(values: np.ndarray) -> str:
    """The emission that values ``(n, D)`` suggest."""
    columns = [column[~np.isnan(column)] for column in values.T]
    if all(map(_are_bits, columns)):
        return "bernoulli"
    if not all(((column >= 0) & (column < EXACT) & (column == np.floor(column))).all() for column in columns):
        return "gaussian"
    return "negative-binomial" if any(column.var() > 2 * column.mean() for column in columns) else "poisson"


def _are_bits(values: np.ndarray) -> bool:
    return bool(np.isin(values[~np.isnan(values)], (0.0, 1.0)).all())
