"""Times of steps, and the regular grids that they lie on."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("noisin_pyro")

LONGEST = 10
"""The inferred grid has at most this many steps for each row; times that need more of them are irregular."""

LARGEST = 100_000_000
"""A grid of more steps is refused."""

_MONTHS = "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"
_DAYS = "MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"


def read_times(name: str, column: pd.Series) -> pd.Index:
    """A column of times as a ``DatetimeIndex`` or as numbers.

    Raises:
        ValueError: values that are neither, or missing ones.
    """
    import pandas as pd

    if isinstance(column.dtype, pd.PeriodDtype):
        column = column.dt.to_timestamp()
    if missing := int(column.isna().sum()):
        raise ValueError(
            f"column {name!r}: {missing} of {len(column)} times are missing; fill them in, or drop the rows"
        )
    if column.dtype.kind in "iu" and column.between(1900_01_01, 2100_12_31).all():
        column = column.astype(str)
        logger.info("column %r: numbers such as %s are read as dates", name, column.iloc[0])
    if column.dtype.kind in "iuf" and np.isfinite(column.to_numpy(float)).all():
        # differences of small integers would overflow
        return pd.Index(column.to_numpy(float if column.dtype.kind == "f" else np.int64))
    try:
        if column.dtype.kind in "biufcm":
            raise ValueError(f"got {column.iloc[0]!r}, of type {column.dtype}")
        # of other formats pandas guesses the order of day and month
        return pd.DatetimeIndex(pd.to_datetime(column, format="ISO8601"))
    except (ValueError, TypeError, OverflowError) as error:
        first = str(error).splitlines()[0].partition(". ")[0]
        raise ValueError(
            f"column {name!r} must hold times ({first}); write them as numbers, or as 2026-01-31 or 2026-01-31T12:00 "
            "in one time zone, by pandas.to_datetime(..., format=...)"
        ) from error


def grid(times: Any, frequency: Any) -> pd.Index:
    """The regular times from the first to the last."""
    import pandas as pd

    if isinstance(times, pd.DatetimeIndex):
        offset = pd.tseries.frequencies.to_offset(_offset(frequency))
        if isinstance(offset, pd.offsets.Tick):
            length: Any = times[-1] - times[0]
            _require_few(length / pd.Timedelta(offset))
        return pd.date_range(times[0], times[-1], freq=offset)
    if not frequency > 0:
        raise ValueError("it must be above 0")
    steps = round((times[-1] - times[0]) / frequency)
    _require_few(steps)
    return pd.Index(times[0] + np.arange(steps + 1) * frequency)


def _require_few(steps: float) -> None:
    if abs(steps) > LARGEST:
        raise ValueError(f"it makes a grid of {abs(steps):.3g} steps, of at most {LARGEST:.0e}; give a coarser one")


def _offset(frequency: Any) -> Any:
    """A frequency that pandas knows, also for ``"3 months"``: the day of the first time, in each third month."""
    import pandas as pd

    months = re.fullmatch(r"(\d+) months?", str(frequency))
    return frequency if months is None else pd.DateOffset(months=int(months[1]))


def positions(times: pd.Index, on: pd.Index) -> np.ndarray:
    """The index of each time in a grid; -1 for times that are not in it."""
    import pandas as pd

    if isinstance(times, pd.DatetimeIndex):
        return on.get_indexer(times)
    step = float(on[1] - on[0]) if len(on) > 1 else 0.0
    tolerance = 1e-6 * step + 4 * np.spacing(max(abs(float(on[0])), abs(float(on[-1]))))
    return on.get_indexer(times, method="nearest", tolerance=tolerance)


def infer_frequency(series: Sequence[pd.Index]) -> str | float | None:
    """The coarsest frequency whose grids have all times of these sorted series; None if there is none, or a single row
    in each series."""
    if all(len(times) < 2 for times in series):
        return None
    rows = sum(map(len, series))
    for frequency in _candidates([times for times in series if len(times) > 1]):
        grids = [grid(times, frequency) for times in series]
        fits = all((positions(times, on) >= 0).all() for times, on in zip(series, grids, strict=True))
        if fits and sum(map(len, grids)) <= LONGEST * rows:
            return frequency
    return None


def _candidates(series: Sequence[Any]) -> Iterator[str | float]:
    import pandas as pd

    first = series[0][0]
    if isinstance(series[0], pd.DatetimeIndex):
        if len({each.time() for times in series for each in times[:100]}) == 1:  # a whole number of days
            month, day = _MONTHS[first.month - 1], _DAYS[first.weekday()]
            yield from (f"YS-{month}", f"YE-{month}", f"QS-{month}", f"QE-{month}", "MS", "ME")
            months = np.gcd.reduce(np.concatenate([np.diff(times.year * 12 + times.month) for times in series]))
            if months and all((times.day == times[0].day).all() and times[0].day <= 28 for times in series):
                yield "1 month" if months == 1 else f"{months} months"
            yield f"W-{day}"
            wall = np.concatenate([np.diff(times.tz_localize(None).as_unit("s").asi8) for times in series])
            if (days := np.gcd.reduce(wall) // 86400) > 1:  # from the first day of each series
                yield f"{days}D"
            if max(times[-1] - times[0] for times in series) >= pd.Timedelta(days=7):  # else no weekend is left out
                yield "B"
            yield "D"
        step = np.gcd.reduce(np.concatenate([np.diff(times.as_unit("us").asi8) for times in series]))
        if max(times[-1] - times[0] for times in series) / pd.Timedelta(step, "us") < 1e8:
            offset: Any = pd.Timedelta(step, "us")
            yield pd.tseries.frequencies.to_offset(offset).freqstr
        return
    differences = np.concatenate([np.diff(times.to_numpy()) for times in series])
    if differences.dtype.kind == "i":
        step = int(np.gcd.reduce(differences))
    else:  # decimal times are rounded, whose error is small in their mean difference
        count = np.round(differences / differences.min()).sum()
        error = np.spacing(max(np.abs(times[[0, -1]]).max() for times in series)) / count
        step = round(float(differences.sum() / count), math.floor(-math.log10(4 * error)))
    if step > 0 and differences.sum() / step < 1e8:
        yield step


def to_steps(
    name: str, times: Sequence[pd.Index], frequency: str | float | None, labels: Sequence[Any]
) -> list[tuple[pd.Index, np.ndarray]]:
    """The grid of each series and the positions of its rows in it.

    Raises:
        ValueError: a frequency that is invalid, or times that are not on its grid.
    """
    result = []
    for own, label in zip(times, labels, strict=True):
        try:
            on = grid(own, frequency) if frequency is not None else own
        except (ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
            raise ValueError(
                "frequency must be an offset of pandas such as 'D' or '15min', or for times that are numbers a number, "
                f"got {frequency!r} ({str(error).splitlines()[0].partition('. Failed')[0]})"
            ) from error
        at = positions(own, on)
        if (at < 0).any() or len(set(at.tolist())) < len(at):
            off = own[int((at < 0).argmax())]
            raise ValueError(
                f"column {name!r}: time {off} of series {label!r} is not on the grid of frequency {frequency!r} from "
                f"{own[0]}; give another frequency, round the times, or take rows as steps (time_difference=True)"
            )
        result.append((on, at))
    gaps = sum(len(on) - len(at) for on, at in result)
    rows = sum(len(at) for _, at in result)
    if gaps > LONGEST * rows:
        logger.warning(
            "column %r: frequency %s makes %d steps of %d rows; a coarser one is faster, and so are irregular times "
            "(time_difference=True)", name, frequency, gaps + rows, rows,
        )  # fmt: skip
    elif gaps:
        logger.info("column %r: frequency %s, with %d missing steps where there are no rows", name, frequency, gaps)
    return result


def differences(times: pd.Index) -> np.ndarray:
    """Time since the row before, in seconds for dates; 0 for the first."""
    import pandas as pd

    steps = np.diff(times) / np.timedelta64(1, "s") if isinstance(times, pd.DatetimeIndex) else np.diff(times)
    return np.concatenate([[0.0], np.asarray(steps, dtype=np.float64)])


def commonest_step(series: Sequence[pd.Index]) -> tuple[int, int, Any]:
    """How many of the differences between the times of each series are equal, of how many, and that difference."""
    import pandas as pd

    steps = pd.concat([times.to_series().diff().dropna() for times in series])
    counts = steps.value_counts()
    return int(counts.iloc[0]), len(steps), counts.index[0]


def later(times: pd.Index, frequency: str | float, count: int) -> pd.Index:
    """The ``count`` times after the last of these, at this frequency."""
    import pandas as pd

    if isinstance(times, pd.DatetimeIndex):
        return pd.date_range(times[-1], periods=count + 1, freq=_offset(frequency))[1:]
    return pd.Index(times[-1] + np.arange(1, count + 1) * frequency)
