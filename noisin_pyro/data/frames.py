"""Series from data frames with a row for each step of each series."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from noisin_pyro.data.columns import numbers
from noisin_pyro.data.scaling import ScalingKind
from noisin_pyro.data.series import Series, make_series
from noisin_pyro.data.series_format import Columns, SeriesFormat, Table
from noisin_pyro.data.time_grid import (
    commonest_step,
    differences,
    infer_frequency,
    later,
    positions,
    read_times,
    to_steps,
)

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("noisin_pyro")

ROWS = "rows"
"""The frequency that makes a step of each row, whatever the times."""


def from_frame(
    frame: Any,
    *,
    values: str | int | Sequence[str | int] = (),
    covariates: str | int | Sequence[str | int] = (),
    id: str | None = None,
    time: str | None = None,
    frequency: str | float | None = None,
    time_difference: bool = False,
    format: SeriesFormat | None = None,
    scaling: ScalingKind | None = None,
    dtype: torch.dtype | None = None,
) -> Series:
    """Make series from a frame with a row for each step of each series.

    Rows are sorted by time within each series. Where a time of the regular grid has no row, the step is missing; its
    covariates are those of the step before. Everything that is inferred is reported to the logger ``"noisin_pyro"``.

    Args:
        frame: a frame of pandas, or of a library with ``to_pandas()``. An index with a name, times or several levels
            is read as columns; times without a name as the column ``"time"``.
        values: the columns that are predicted; NaN is missing.
        covariates: columns that are known in advance, also for forecasts; may not be missing.
        id: the column that names the series of a row; default: all rows are one series.
        time: the column of times: dates or numbers; default: rows are in order, and each is a step.
        frequency: step of the grid: an offset of pandas such as ``"D"``, ``"1 month"`` (the day of the first time in
            each month), or a number for times that are numbers; ``"rows"``: each row is a step. Default: the coarsest
            grid that has all times; if there is none with at most ten steps for each row, each row is a step.
        time_difference: whether the time since the row before is one more covariate (of dates, in seconds). Each row is
            then a step.
        format: that of a model's training data, such as ``train.format``, with its columns; columns and frequency are
            then not given. By default it is fitted to this frame.
        scaling: of the values, ``"standard"``, ``"mean"`` or ``"none"``; default: as :meth:`SeriesFormat.fit` has it.
        dtype: of the tensors; default: torch's default.

    Raises:
        ValueError: columns that are missing or hold other values than these, several rows for one time, or times
            that are not on the grid.
    """
    names: list[Any] = [
        tuple(part) if isinstance(part, Iterable) and not isinstance(part, str) else (part,)
        for part in (values, covariates)
    ]
    columns = Columns(names[0], names[1], id, time, frequency, time_difference)
    if format is not None:
        if columns != Columns(()):
            raise ValueError("columns and frequency are those of the format; leave them out, or give no format")
        columns = format.columns
    if not columns.values:
        raise ValueError(f"values must name at least one column, of {[*getattr(frame, 'columns', ())]}")
    table, columns = read_frame(frame, columns)
    return make_series(table, columns, format, scaling, dtype)


def read_frame(frame: Any, columns: Columns) -> tuple[Table, Columns]:
    """The series of a frame, and its columns with the frequency that its times have."""
    frame = _checked(frame, columns)
    values = {name: numbers(name, frame[name]) for name in columns.values}
    covariates = {name: numbers(name, frame[name], known=True) for name in columns.covariates}
    times = None if columns.time is None else read_times(columns.time, frame[columns.time])
    rows, ids = _rows(frame, columns.id)
    if times is not None:
        if not all(times[own].is_monotonic_increasing for own in rows):
            logger.info("column %r: rows are sorted by time within each series", columns.time)
        rows = [_sorted(columns, own, times, label) for own, label in zip(rows, ids, strict=True)]
    arrays = [np.stack([*part.values()], 1) if part else np.zeros((len(frame), 0)) for part in (values, covariates)]
    table = Table([arrays[0][own] for own in rows], [arrays[1][own] for own in rows], ids)
    if times is None:
        for name, given in (("frequency", columns.frequency), ("time_difference", columns.time_difference)):
            if given:
                raise ValueError(f"{name} {given!r} needs a column of times; name it by time, or leave it out")
        return table, columns
    return _in_time(table, columns, [times[own] for own in rows])


def future_covariates(frame: Any, data: Series, num_steps: int) -> tuple[np.ndarray, list[pd.Index] | None]:
    """The covariates of the steps after the end of each series, ``(N, H, C)``, from a frame of the same columns.

    Returns:
        The covariates, and the times of these steps, if they have any.

    Raises:
        ValueError: a series or times that are missing, or what :func:`from_frame` refuses.
    """
    columns = data.format.columns
    rows = ROWS if columns.time is not None else None
    roles = replace(columns, values=columns.covariates, covariates=(), frequency=rows, time_difference=False)
    table, _ = read_frame(frame, roles)
    numbers_of, parts, future_times = {label: n for n, label in enumerate(table.ids)}, [], []
    texts = {str(label): n for n, label in enumerate(table.ids)}
    if len(texts) == len(table.ids) and len({*map(str, data.ids)}) == len(data):  # then "1" can only be 1
        numbers_of = {label: texts[str(label)] for label in data.ids if str(label) in texts} | numbers_of
    for label, end in zip(data.ids, data.times or [None] * len(data), strict=True):
        if label not in numbers_of:
            raise ValueError(
                f"covariates have no rows of series {label!r}, but of {', '.join(map(repr, table.ids[:3]))}; add "
                f"{num_steps} rows of it"
            )
        own = table.values[numbers_of[label]]
        if end is not None and table.times is not None:
            times = table.times[numbers_of[label]]
            try:
                future = times > end[-1]
            except TypeError as error:
                raise ValueError(
                    f"covariates: times such as {times[0]} cannot be compared with {end[-1]}, the last of series "
                    f"{label!r}; write them alike: as dates or as numbers, with a time zone or without"
                ) from error
            own, times = own[future], times[future]
            if columns.frequency not in (None, ROWS):
                at = _places(times, later(end, columns.frequency, num_steps), label)
                own, times = own[at], times[at]
            if columns.time_difference:
                own = np.concatenate([own, differences(end[-1:].append(times))[1:, None]], 1)
            future_times.append(times[:num_steps])
        elif len(own) > num_steps:
            raise ValueError(
                f"covariates without times must have just the {num_steps} future rows of series {label!r}, got "
                f"{len(own)}; leave the rows of the past and beyond out"
            )
        if len(own) < num_steps:
            raise ValueError(f"covariates must have {num_steps} future rows of series {label!r}, got {len(own)}")
        parts.append(own[:num_steps])
    return np.stack(parts), future_times or None


def _places(times: pd.Index, expected: pd.Index, label: Any) -> np.ndarray:
    at = positions(expected, times) if len(times) else np.full(len(expected), -1)
    if (at < 0).any():
        first = expected[int((at < 0).argmax())]
        raise ValueError(f"covariates have no row of series {label!r} at the future time {first}; add it")
    return at


def _checked(frame: Any, columns: Columns) -> pd.DataFrame:
    import pandas as pd

    frame = frame.to_pandas() if hasattr(frame, "to_pandas") else frame
    if not isinstance(frame, pd.DataFrame):
        remedy = "; call its collect()" if hasattr(frame, "collect") else ""
        raise ValueError(
            f"frame must be a data frame of pandas or with to_pandas(), got {type(frame).__name__}{remedy}"
        )
    if columns.time is None and isinstance(frame.index, pd.DatetimeIndex | pd.PeriodIndex):
        logger.warning("the times in the index are ignored; name them by time=%r", frame.index.name or "time")
    frame = index_to_columns(frame)
    roles = [name for name in (columns.id, columns.time, *columns.values, *columns.covariates) if name is not None]
    for name in roles:
        count = list(frame.columns).count(name)
        if count != 1:
            is_list = {part.strip() for part in str(name).split(",")} <= {*frame.columns}
            remedy = (
                "; give the names one by one, in a command with spaces between them" if is_list and not count else ""
            )
            found = f"column {name!r} is there {count} times" if count else f"there is no column {name!r}"
            raise ValueError(f"{found}; the columns are {', '.join(map(repr, frame.columns))}{remedy}")
        if roles.count(name) > 1:
            raise ValueError(f"column {name!r} must have one role, got it twice among id, time, values and covariates")
    if frame.empty:
        raise ValueError(f"frame must have at least one row, got none with columns {[*frame.columns]}")
    return frame


def index_to_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with an index that has a name, times or several levels as columns; another index is dropped."""
    import pandas as pd

    has_times = isinstance(frame.index, pd.DatetimeIndex | pd.PeriodIndex)
    if has_times and frame.index.name is None and "time" not in frame.columns:
        frame = frame.rename_axis("time")
    is_data = has_times or frame.index.names != [None]
    copies = [name for name in frame.index.names if name in frame.columns]  # by set_index(..., drop=False)
    if copies:
        frame, is_data = frame.reset_index(level=copies, drop=True), len(copies) < frame.index.nlevels
    return frame.reset_index(drop=not is_data)


def _rows(frame: pd.DataFrame, id: str | None) -> tuple[list[np.ndarray], list[Any]]:
    """The rows of each series, in order, and the labels of the series, in the order of the frame."""
    if id is None:
        return [np.arange(len(frame))], [0]
    own: Any = frame[id]
    if missing := int(own.isna().sum()):
        raise ValueError(
            f"column {id!r}: {missing} of {len(frame)} rows name no series; fill them in, or drop the rows"
        )
    codes, labels = own.astype(object).factorize()
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1), [*labels]


def _sorted(columns: Columns, rows: np.ndarray, times: pd.Index, label: Any) -> np.ndarray:
    own = times[rows]
    order = own.argsort(kind="stable")
    if own.has_duplicates:
        twice = own[own.duplicated()][0]
        remedy = "name the column of series by id" if columns.id is None else "aggregate them"
        series = "" if columns.id is None else f" of series {label!r}"
        raise ValueError(f"column {columns.time!r}: several rows{series} have the time {twice}; {remedy}, or drop some")
    return rows[order]


def _in_time(table: Table, columns: Columns, times: list[pd.Index]) -> tuple[Table, Columns]:
    """The table with missing steps where the grid of times has no rows, or with time differences."""
    import pandas as pd

    name, frequency = columns.time, columns.frequency
    assert name is not None
    if columns.time_difference:
        if frequency not in (None, ROWS):
            raise ValueError(
                f"frequency {frequency!r} has no effect with time_difference, where rows are steps; drop it"
            )
        steps = [differences(own)[:, None] for own in times]
        covariates = [np.concatenate(pair, 1) for pair in zip(table.covariates, steps, strict=True)]
        return replace(table, covariates=covariates, times=times), columns
    if frequency is None:
        frequency = infer_frequency(times)
        if frequency is None and any(len(own) > 1 for own in times):
            logger.warning(
                "column %r: the times are on no regular grid; each row is a step, and gaps are ignored. %d of %d "
                "steps are %s: round the times to a grid, or add these steps to the covariates by time_difference",
                name, *commonest_step(times),
            )  # fmt: skip
    elif frequency == ROWS:
        frequency = None
    elif isinstance(frequency, str) and not isinstance(times[0], pd.DatetimeIndex):
        with contextlib.suppress(ValueError):  # of a command
            number: Any = pd.to_numeric(frequency)
            frequency = number.item()
    values, covariates, grids = [], [], []
    steps = to_steps(name, times, frequency, table.ids)
    for own, known, (on, at) in zip(table.values, table.covariates, steps, strict=True):
        full = np.full((len(on), own.shape[1]), np.nan)
        full[at] = own
        latest = np.searchsorted(at, np.arange(len(on)), side="right") - 1
        values.append(full)
        covariates.append(known[latest])
        grids.append(on)
    return Table(values, covariates, table.ids, grids), replace(columns, frequency=frequency or ROWS)
