"""Checks of values that come from files or users: against type hints, or against an example."""

from __future__ import annotations

import dataclasses
import types
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from torch import Tensor
from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

from noisin_pyro._lookup import known

T = TypeVar("T")


def check_types(record: T) -> T:
    """Check the type of every field of a dataclass.

    An ``int`` is also a ``float``; a ``bool`` is neither.

    Returns:
        The dataclass, with numpy's numbers as Python's.

    Raises:
        ValueError: naming the first field whose type is wrong.
    """
    instance: Any = record
    numbers = {name: value.item() for name, value in vars(instance).items() if isinstance(value, np.generic)}
    instance = dataclasses.replace(instance, **numbers) if numbers else instance
    for name, hint in get_type_hints(type(instance)).items():
        value, label = getattr(instance, name), name.replace("_", " ")
        parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        choices = [choice for part in parts if get_origin(part) is Literal for choice in get_args(part)]
        if choices and value is not None:
            known(label, value, choices)
        try:
            if isinstance(value, bool) and not {bool, Any}.intersection(parts):
                raise TypeCheckError("a bool is no number")
            check_type(value, hint, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
        except TypeCheckError as error:
            names = [part.__name__ if isinstance(part, type) else str(part) for part in parts]
            raise ValueError(f"{label} must be {' or '.join(names)}, got {value!r}") from error
    return instance


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
