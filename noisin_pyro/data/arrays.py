"""Series from arrays and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noisin_pyro.data.columns import numbers
from noisin_pyro.data.scaling import ScalingKind
from noisin_pyro.data.series import Series, make_series
from noisin_pyro.data.series_format import Columns, SeriesFormat, Table


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
        values: what is predicted, NaN or masked where missing: a list with an array or tensor ``(T,)`` or ``(T, D)``
            for each series, or one array ``(N, T, D)``.
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
    if isinstance(part, np.ma.MaskedArray):
        return np.ma.filled(part.astype(np.float64), np.nan)
    if isinstance(part, Tensor):
        part = part.detach().cpu()
        part = part.double() if part.is_floating_point() else part  # numpy has no bfloat16
    return np.asarray(part)


def _numbers(names: Sequence[str], array: np.ndarray, known: bool = False) -> np.ndarray:
    columns = [numbers(name, column, known) for name, column in zip(names, array.T, strict=True)]
    return np.stack(columns, 1) if columns else np.zeros((len(array), 0))
