"""Whether what was read from a file is of the kind that it should be: by type hints, or by example."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from torch import Tensor

from noisin_pyro._lookup import known

T = TypeVar("T")


def checked(record: T) -> T:
    """The dataclass itself, if every field is of its type; an ``int`` is a ``float`` too, a ``bool`` neither.

    Raises:
        ValueError: naming the first field that is not.
    """
    for name, hint in get_type_hints(type(record)).items():
        value, words = getattr(record, name), name.replace("_", " ")
        if get_origin(hint) is Literal:
            known(words, value, get_args(hint))
        elif not fits(value, hint):
            raise ValueError(f"{words} must be {_told(hint)}, got {value!r}")
    return record


def fits(value: object, hint: Any) -> bool:
    """Whether ``value`` is of the type that ``hint`` says."""
    if hint is Any:
        return True
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return isinstance(value, str) and value in parts
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is tuple:
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(fits, value, parts))
    if origin is list:
        return isinstance(value, list) and all(fits(each, parts[0]) for each in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(fits(k, parts[0]) and fits(v, parts[1]) for k, v in value.items())
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def alike(found: object, example: object) -> bool:
    """Whether two nested dictionaries agree in keys, in shape and type of tensors and in the types of all else."""
    if isinstance(example, dict):
        return (
            isinstance(found, dict)
            and found.keys() == example.keys()
            and all(alike(found[key], value) for key, value in example.items())
        )
    if isinstance(example, Tensor):
        return isinstance(found, Tensor) and found.shape == example.shape and found.dtype == example.dtype
    return type(found) is type(example)


def _told(hint: Any) -> str:
    parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    return " or ".join(part.__name__ if isinstance(part, type) else str(part).rpartition(".")[2] for part in parts)
