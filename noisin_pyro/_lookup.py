"""Checks of arguments that all subpackages share: names, and whole numbers."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def known(kind: str, name: object, names: Iterable[str]) -> str:
    """The name itself, if it is one of ``names``.

    Raises:
        ValueError: if it is not: lists them and suggests the nearest.
    """
    names = list(names)
    if isinstance(name, str) and name in names:
        return name
    by_lower_case = {each.lower(): each for each in names}
    nearest = difflib.get_close_matches(str(name).lower(), by_lower_case, n=1, cutoff=0.5)
    hint = f"; did you mean {by_lower_case[nearest[0]]!r}?" if nearest else ""
    raise ValueError(f"{kind} must be one of {', '.join(names)}, got {name!r}{hint}")


def named(kind: str, given: str | T, table: Mapping[str, type[T]], base: type[T], *arguments: Any) -> T:
    """The instance itself, or a new one of that name, made with ``arguments``.

    Raises:
        ValueError: for an unknown name.
    """
    return given if isinstance(given, base) else table[known(kind, given, table)](*arguments)


def integer(argument: str, value: Any, minimum: int = 1) -> int:
    """A whole number as an ``int``, from any type that is one (numpy's, too).

    Raises:
        ValueError: for another type, a boolean, or a number below ``minimum``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = minimum - 1
    if isinstance(value, bool) or number < minimum:
        expected = "a positive integer" if minimum == 1 else f"an integer of at least {minimum}"
        raise ValueError(f"{argument} must be {expected}, got {value!r}")
    return number
