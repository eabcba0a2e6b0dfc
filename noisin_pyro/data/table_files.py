"""Tables in files: which columns they have, and their training, validation and test parts."""

from __future__ import annotations

import csv
import io
import logging
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from noisin_pyro.data.catalog import Corpus
from noisin_pyro.data.columns import is_mostly_numbers, numbers
from noisin_pyro.data.encodings import decode
from noisin_pyro.data.frames import index_to_columns, read_frame
from noisin_pyro.data.scaling import ScalingKind
from noisin_pyro.data.series import Series, floating_point
from noisin_pyro.data.series_format import Columns, SeriesFormat, split

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("noisin_pyro")

SUFFIXES = ".csv", ".tsv", ".parquet"
"""Suffixes of the files that are read as tables."""

_IDS = "id", "series", "series_id", "unique_id", "item_id"
_TIMES = "time", "date", "datetime", "timestamp", "ds"
_PERIODS = "year", "month", "day"
_VALUES = "y", "value", "values", "target"
_UNNAMED = r"Unnamed: \d+|"  # an index that pandas has written


def load_table(
    path: str | Path,
    columns: Columns | None = None,
    *,
    by: Literal["time", "series"] = "time",
    valid: float = 0.1,
    test: float = 0.1,
    emission: str | None = None,
    scaling: ScalingKind | None = None,
    dtype: torch.dtype | None = None,
) -> Corpus:
    """Load a table of series in three parts. Scaling is fitted to the training part.

    Split in time, the validation and test parts have the steps before them too, as history: their targets are masked,
    so that the state at the first step that is scored comes from them. The network reads the history as inputs; its
    noise is weighted by it in forecasts and in the particle filter's likelihood, but not in other scores.

    Args:
        path: a CSV, TSV or Parquet file with a row for each step of each series.
        columns: its columns. Those that are not named are inferred, and reported to the logger ``"noisin_pyro"``.
        by: split each series in ``"time"``, or by ``"series"``, with the last ones for test.
        valid, test: fractions of the steps, or of the series.
        emission, scaling: as for :meth:`SeriesFormat.fit`.
        dtype: floating-point type of inputs and targets (default: torch's).

    Raises:
        ValueError: a file that is missing or damaged, columns that it lacks, or that hold something else.
    """
    path, columns, dtype = Path(path), columns or Columns(()), floating_point(dtype)
    frame = read_table(path, columns.id)
    columns = infer_columns(frame, columns, path)
    if columns.id in frame.columns and bool(frame[columns.id].isna().any()):
        frame = read_table(path, columns.id)  # NA may be a name
    table, columns = read_frame(frame, columns)
    parts = split(table, by, valid, test)
    format = SeriesFormat.fit(parts[0][0], columns, emission, scaling)
    if emission is None:
        reason = {
            "bernoulli": "they are 0 and 1",
            "poisson": "counts",
            "negative-binomial": "counts with a variance of more than twice the mean",
            "gaussian": "real numbers",
        }[format.emission]
        logger.info("%s: the values suggest the emission %s: %s", path, format.emission, reason)
    train, valid_part, test_part = (Series(part, format, history) for part, history in parts)
    corpus = Corpus(path.stem, train, valid_part, test_part, vocabulary=None)
    return corpus.to(dtype)


def read_table(path: str | Path, id: str | None = None) -> pd.DataFrame:
    """Read a CSV, TSV or Parquet file.

    Args:
        path: the file.
        id: the column that names the series of a row. In CSV and TSV files it is read as text, in which 001 differs
            from 1 and NA is a name; so are columns called ``id``, ``series`` or the like.

    Raises:
        ValueError: a file that is missing, damaged or in another format.
    """
    import pandas as pd

    path = Path(path)
    try:
        if path.suffix.lower() == ".parquet":
            return index_to_columns(pd.read_parquet(path))
        text = decode(path.read_bytes(), path).lstrip("\ufeff")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # pandas warns where rows are longer than the header, and cuts them
            options: Any = {"index_col": False, "skipinitialspace": True, "low_memory": False, **_dialect(text, path)}
            frame = pd.read_csv(io.StringIO(text), **options)
            ids = [name for name in frame.columns if name == id or _is_named(name, _IDS)]
            if ids:
                options |= {"usecols": ids, "dtype": str, "keep_default_na": False}
                labels = pd.read_csv(io.StringIO(text), **options).apply(lambda column: column.str.strip())
                frame[ids] = labels.where(labels != "")
            return frame
    except ImportError as error:
        raise ValueError(
            f"{path}: reading Parquet needs pyarrow; install the extra, pip install 'noisin_pyro[parquet]', or give CSV"
        ) from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}); pass the path of a table") from error
    except (ValueError, Warning) as error:
        if str(path) in str(error):
            raise
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} is not a table with one line of column names and rows as long ({first})") from error


def _dialect(text: str, path: Path) -> dict[str, Any]:
    """Separator and decimal mark."""
    header = text.lstrip().partition("\n")[0]
    separator = max(",;\t|", key=header.count)
    names = next(csv.reader([header.strip()], delimiter=separator), [])
    twice = sorted({name for name in names if names.count(name) > 1})
    numeric = [name for name in names if re.fullmatch(r"\s*[-+\d.]+\s*", name)]
    if twice or numeric or not names:
        got = f"{(twice or numeric)[0]!r}{' twice' if twice else ''}" if names else "an empty one"
        raise ValueError(f"{path}: the first line must name the columns, each differently, got {got}")
    commas = separator != "," and re.search(
        rf"{re.escape(separator)}\s*-?\d+,\d+\s*({re.escape(separator)}|$)", text, re.M
    )
    if separator != "," or commas:
        logger.info("%s: columns are separated by %r%s", path, separator, ", and decimals by commas" if commas else "")
    return {"sep": separator, "decimal": "," if commas else "."}


def infer_columns(frame: pd.DataFrame, given: Columns, path: Path) -> Columns:
    """The columns of a table, inferred where they are not given.

    The time is the first column with such a name, with dates, or of years, months or days as increasing whole numbers;
    the series a column with such a name, or the only one of text if times repeat (without times: if its labels are in
    blocks of rows); the values a column with such a name or all other numbers but an unnamed index.

    Raises:
        ValueError: no column of numbers, one that has text in some cells, or a series for each row.
    """
    _require_numbers(frame, given)
    time, id, texts = _infer_time_and_series(frame, given)
    rest = [name for name in frame.columns if name not in (time, id, *given.values, *given.covariates)]
    numeric = [name for name in rest if _is_number(frame[name]) and not re.fullmatch(_UNNAMED, str(name).strip())]
    values = given.values or tuple([name for name in rest if _is_named(name, _VALUES)] or numeric)
    if not values:
        raise ValueError(f"{path} has no column of numbers to predict among {[*frame.columns]}; name one by values")
    if time is None and id is None:
        if len(texts) > 1:
            raise ValueError(
                f"{path}: columns {', '.join(map(repr, texts))} are text, and none of them is known as the series or "
                "the time of a row; name the series by id and the time by time, and write times as 2026-01-31; if the "
                "rows are a single series in order, leave these columns out"
            )
        for name in (name for name in rest if (name,) != values and _may_be_ids(frame[name])):
            logger.warning("%s: column %r has equal numbers in blocks; if it names series, name it by id", path, name)
    columns = Columns(values, given.covariates, id, time, given.frequency, given.time_difference)
    unused = [str(name) for name in rest if name not in values]
    logger.info(
        "%s: values %s; covariates %s; series %s; time %s%s",
        path, ", ".join(map(str, values)), ", ".join(given.covariates) or "none",
        "one" if id is None else f"by {id}", "none, rows are steps" if time is None else f"by {time}",
        f"; unused: {', '.join(unused)}" if unused else "",
    )  # fmt: skip
    return columns


def _require_numbers(frame: pd.DataFrame, given: Columns) -> None:
    """Where all columns of numbers are values, raise for one with text in some cells: it would count as text.

    Raises:
        ValueError: naming the first of these cells.
    """
    rest = [name for name in frame.columns if name not in (given.id, given.time, *given.covariates)]
    if given.values or any(_is_named(name, _VALUES) for name in rest):
        return
    time = _time_of(frame, given, rest)
    for name in rest:
        own: Any = frame[name]
        is_other = name == time or _is_named(name, (*_IDS, *_TIMES)) or re.fullmatch(_UNNAMED, str(name).strip())
        if is_other or _is_number(own) or _holds_dates(own) or not is_mostly_numbers(own):
            continue
        repeats = own.nunique() <= own.count() / 2
        if repeats and _names_series(frame, name, time) and (time is None or not frame.duplicated([time, name]).any()):
            continue
        try:
            numbers(name, own)
        except ValueError as error:
            id = "if the column names series, name it by id, and if not, " if repeats else "or "
            raise ValueError(f"{error}; {id}name the columns of values by values") from error


def _time_of(frame: pd.DataFrame, given: Columns, rest: list[Any]) -> Any:
    """The column of times that is given, or known by its name or its dates; None if there is none."""
    named = (name for name in rest if _is_named(name, _TIMES) or _holds_dates(frame[name]))
    return next(named, None) if given.time is None else given.time


def _infer_time_and_series(frame: pd.DataFrame, given: Columns) -> tuple[Any, Any, list[Any]]:
    """The columns of times and of series, or None, and the columns of text that are neither time nor values."""
    rest = [name for name in frame.columns if name not in (given.id, given.time, *given.values, *given.covariates)]
    time, id = _time_of(frame, given, rest), given.id
    texts = [name for name in rest if name != time and not _is_number(frame[name]) and not _is_named(name, _VALUES)]
    named = next((name for name in rest if _is_named(name, _IDS)), None)
    label = next((name for name in (id, named, *texts[: len(texts) == 1]) if name in frame.columns), None)
    if time is None:
        own: list[Any] = [frame] if label is None else [part for _, part in frame.groupby(label)]
        periods = [name for name in rest if _is_named(name, _PERIODS) and frame[name].dtype.kind in "iu"]
        time = next((name for name in periods if all(_increases(part[name]) for part in own)), None)
    if id is None and label is not None and (label == named or _names_series(frame, label, time)):
        id = label
        labels: Any = frame[id]
        if labels.nunique() == len(frame) > 1:
            raise ValueError(
                f"column {id!r} names another series in each of {len(frame)} rows; name the column of series by id, or "
                "if these are times, give it by time and write them as numbers or as 2026-01-31"
            )
    return time, id, texts


def _is_number(own: Any) -> bool:
    import pandas as pd

    is_numeric = pd.api.types.is_numeric_dtype(own) or bool(own.isna().all())
    return is_numeric or pd.api.types.infer_dtype(own, skipna=True) in ("boolean", "decimal")


def _may_be_ids(column: Any) -> bool:
    """Whether whole numbers may name series; a quantity that changes rarely looks the same."""
    return column.dtype.kind in "iu" and 1 < column.nunique() <= len(column) / 2 and _is_in_blocks(column)


def _names_series(frame: pd.DataFrame, label: Any, time: Any) -> bool:
    """Whether a column of text names series, and is not one more property of the steps of a single one."""
    if time in frame.columns:
        return bool(frame[time].duplicated().any())
    return _is_in_blocks(frame[label])


def _is_in_blocks(labels: Any) -> bool:
    codes = labels.factorize()[0]
    return int((codes[1:] != codes[:-1]).sum()) + 1 == len({*codes.tolist()})


def _is_named(name: Any, names: tuple[str, ...]) -> bool:
    return str(name).strip().lower() in names


def _increases(column: Any) -> bool:
    return column.is_monotonic_increasing and column.is_unique


def _holds_dates(column: Any) -> bool:
    import pandas as pd

    if column.dtype.kind == "M" or isinstance(column.dtype, pd.PeriodDtype):
        return True
    if column.dtype.kind in "iufcb" or column.isna().all():
        return False
    return bool(column.dropna().astype(str).str.match(r"\d{4}-\d{2}(-\d{2})?([T ]|$)").all())
