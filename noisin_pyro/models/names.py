"""Things given by name or as an instance."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def named(kind: str, given: str | T, table: Mapping[str, type[T]], base: type[T], *arguments: int) -> T:
    """The instance itself, or a new one of that name, made with ``arguments``.

    Raises:
        ValueError: for an unknown name: lists what exists and suggests the nearest.
    """
    if isinstance(given, base):
        return given
    if isinstance(given, str) and given in table:
        return table[given](*arguments)
    nearest = difflib.get_close_matches(str(given), table, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"{kind} must be a {base.__name__} or one of {', '.join(table)}, got {given!r}{hint}")
