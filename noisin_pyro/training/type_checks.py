"""Checks of values that come from files or users: against type hints, or against an example."""

from __future__ import annotations

import functools
import math
import re
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from torch import Tensor

from noisin_pyro._lookup import known

T = TypeVar("T")


def check_types(record: T) -> T:
    """Check every field of a dataclass against its type hint, strictly: a ``bool`` is not a number, a list not a tuple.

    Returns:
        The dataclass.

    Raises:
        ValueError: naming the first field that does not fit, its value and what is expected.
    """
    for name, hint in get_type_hints(type(record)).items():
        if get_origin(hint) is Literal:
            known(name.replace("_", " "), getattr(record, name), get_args(hint))
    try:
        _schema(type(record)).model_validate(vars(record))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = f"{first['loc'][0]}".replace("_", " ")
        message = first["msg"].replace("greater than or equal to", "at least")
        expected = re.sub(r"^\w+ should", "must", message) if " should" in message else f"must be valid ({message})"
        if isinstance(first["input"], float) and not math.isfinite(first["input"]):
            expected = "must be a finite number"
        raise ValueError(f"{name} {expected}, got {first['input']!r}") from error
    return record


@functools.cache
def _schema(kind: type) -> type[BaseModel]:
    """A pydantic model with the fields of a dataclass. Only its checks are used: it would convert 1 to 1.0."""
    fields: dict[str, Any] = {name: (hint, ...) for name, hint in get_type_hints(kind, include_extras=True).items()}
    return create_model(kind.__name__, __config__=ConfigDict(strict=True, arbitrary_types_allowed=True), **fields)


def same_structure(value: object, example: object) -> bool:
    """Whether two nested dictionaries agree in keys, in shape and type of tensors and in the types of all else."""
    if isinstance(example, dict):
        return (
            isinstance(value, dict)
            and value.keys() == example.keys()
            and all(same_structure(value[key], part) for key, part in example.items())
        )
    if isinstance(example, Tensor):
        return isinstance(value, Tensor) and value.shape == example.shape and value.dtype == example.dtype
    return type(value) is type(example)
