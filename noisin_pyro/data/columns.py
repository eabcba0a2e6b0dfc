"""Columns of numbers: what they may hold, and what is lost in conversion."""

from __future__ import annotations

import logging
import re
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger("noisin_pyro")

EXACT = 2**53
"""Whole numbers below this are exact in float64."""


def numbers(name: str, column: Any, known: bool = False) -> np.ndarray:
    """A column as float64, NaN where missing.

    Args:
        name: the column's name in messages.
        column: an array, or a pandas series of any type whose values can be read as numbers.
        known: whether missing values are refused, as in covariates.

    Raises:
        ValueError: other values, infinite values, or missing ones that are refused.
    """
    import pandas as pd

    column = pd.Series(column).reset_index(drop=True)
    number = _to_numeric(column)
    if wrong := (bad := column[number.isna() & column.notna()]).size:
        raise ValueError(
            f"column {name!r}, row {bad.index[0]}: {bad.iloc[0]!r} is not a number"
            f"{f' (and {wrong - 1} others)' if wrong > 1 else ''}; {_remedy(bad)}"
        )
    values = number.to_numpy(np.float64, na_value=np.nan)
    if number.dtype.kind in "iu" and (np.abs(values) >= EXACT).any():
        logger.warning(
            "column %r: whole numbers beyond 2**53 are rounded; subtract an offset to keep their digits", name
        )
    if np.isinf(values).any():
        row = int(np.isinf(values).argmax())
        remedy = "correct it" if known else "mark it as missing (NaN), or correct it"
        raise ValueError(f"column {name!r}, row {row}: infinite; {remedy}")
    if known and np.isnan(values).any():
        row = int(np.isnan(values).argmax())
        raise ValueError(
            f"column {name!r}, row {row}: a covariate is missing; fill it in, or give the column among the "
            "values, which may be missing"
        )
    return values


def _remedy(bad: Any) -> str:
    """What to do about cells that are not numbers."""
    texts = [cell if isinstance(cell, str) else "" for cell in bad]
    if all(re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", text) for text in texts):
        return "remove the separators of thousands, as pandas.read_csv(..., thousands=',') does"
    if texts[0].replace(",", ".", 1).replace(".", "", 1).strip("-").isdigit():
        return "read decimal commas by pandas.read_csv(..., decimal=',')"
    return "convert or remove it"


def is_mostly_numbers(column: Any) -> bool:
    """Whether more than half of a column's cells that are not missing are numbers, commas in them left out."""
    cells = column.map(lambda cell: cell.replace(",", "") if isinstance(cell, str) else cell)
    return bool(_to_numeric(cells).notna().sum() * 2 > column.notna().sum())


def _to_numeric(column: Any) -> Any:
    """A pandas series as numbers, NaN where a cell is none."""
    import pandas as pd

    if not pd.api.types.is_any_real_numeric_dtype(column) and column.dtype.kind != "b":  # pandas reads dates as numbers
        cells = [x if isinstance(x, Real | Decimal | str | np.bool_) else None for x in column]
        column = pd.Series(cells, dtype=object)
    return pd.to_numeric(column, errors="coerce")


def check_precision(name: str, values: Tensor, scale: float, dtype: torch.dtype) -> None:
    """Log a warning if values in ``dtype`` lose digits that matter at this scale.

    Raises:
        ValueError: values beyond the range of ``dtype``.
    """
    info, largest = torch.finfo(dtype), float(values.nan_to_num(0.0, torch.inf, -torch.inf).abs().max())
    if not (largest < info.max and info.tiny < scale < info.max):
        raise ValueError(
            f"column {name!r}: values up to {largest:g} that vary by {scale:g} are beyond the range of {dtype}; "
            "rescale the column, or use float64"
        )
    if largest * info.eps > 1e-3 * scale:
        logger.warning(
            "column %r: values up to %g that vary by %g lose digits in %s; subtract an offset, or use float64",
            name, largest, scale, dtype,
        )  # fmt: skip
