"""What a search chooses from: fields of a configuration by their dotted names, each with choices or a range."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from noisin_pyro import noise
from noisin_pyro.names import known
from noisin_pyro.training.config import Config
from noisin_pyro.training.kinds import fits

MOST_LISTED = 10_000  # combinations; a space of more is sampled as if it were endless
_PROBED = 1_000  # combinations that are tried before a value is said to be refused in all
# What makes trials' numbers incomparable, and what each trial has of its own.
_HELD = {
    "data.name", "data.root", "data.files", "data.min_count", "data.max_vocabulary", "run.folder", "run.resume",
    "run.twin",
}  # fmt: skip


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``, both included; whole ones where the field is of whole numbers.

    Args:
        log: search the logarithm evenly.

    Raises:
        ValueError: ends that are not finite or not in order, or not above 0 where ``log``.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        ends = (self.low, self.high)
        if not all(fits(end, float) and math.isfinite(end) for end in ends) or not self.low < self.high:
            raise ValueError(f"range must be from a number to a larger one, got {self.low!r} to {self.high!r}")
        if self.log and self.low <= 0:
            raise ValueError(f"range with log must be of positive numbers, got {self.low!r} to {self.high!r}")


Space = Mapping[str, tuple[Any, ...] | Range]
"""What is searched: choices or a :class:`Range` for each dotted name of a field of :class:`Config`."""

Values = dict[str, Any]


def fields() -> dict[str, Any]:
    """The dotted names of what can be searched, with their types."""
    return {
        name: hint
        for group, kind in get_type_hints(Config).items()
        for field, hint in get_type_hints(kind).items()
        if (name := f"{group}.{field}") not in _HELD
    }


def chosen(config: Config, values: Mapping[str, Any]) -> Config:
    """``config`` with these values in place of its own.

    Raises:
        ValueError: a combination that :class:`Config` refuses.
    """
    groups: dict[str, Any] = {}
    for name, value in values.items():
        group, _, field = name.partition(".")
        groups[group] = dataclasses.replace(groups.get(group, getattr(config, group)), **{field: value})
    return dataclasses.replace(config, **groups)


def require(space: Space, config: Config) -> None:
    """Refuse a space that holds what no trial could have.

    Raises:
        ValueError: an empty space, a name that is no field's, no choices, one twice, or a value that :class:`Config`
            refuses whatever the others are.
    """
    if not space:
        raise ValueError("space is empty; give at least one field to search, such as noise.spread")
    for name, values in space.items():
        hint = fields()[known("space: a name", name, fields())]
        if isinstance(values, Range):
            if not fits(values.low, hint) or not fits(values.high, hint):
                raise ValueError(f"space: {name} cannot be from {values.low!r} to {values.high!r}: not of its type")
        elif not isinstance(values, tuple) or not values:
            raise ValueError(f"space: {name} must have a tuple of choices or a Range, got {values!r}")
        elif not all(value is None or isinstance(value, str | int | float) for value in values):
            raise ValueError(f"space: choices of {name} must be text, numbers, booleans or None, got {values!r}")
        elif len(set(values)) < len(values):
            raise ValueError(f"space: {name} has a choice twice in {values!r}; leave one out")
    probes = {name: _probes(values) for name, values in space.items()}
    for name, values in probes.items():
        for value in values:
            _require_possible(config, name, value, {**probes, name: (value,)})


def combinations(space: Space) -> list[Values] | None:
    """Every combination, the last field changing fastest; ``None`` where there is a range, or too many."""
    choices = [values for values in space.values() if not isinstance(values, Range)]
    if len(choices) < len(space) or math.prod(map(len, choices)) > MOST_LISTED:
        return None
    return list(_product(dict(zip(space, choices, strict=True))))


def plain(space: Space) -> dict[str, Any]:
    """The space for JSON: lists of choices, and ranges as dictionaries."""
    return {
        name: dataclasses.asdict(values) if isinstance(values, Range) else list(values)
        for name, values in space.items()
    }


def _probes(values: tuple[Any, ...] | Range) -> tuple[Any, ...]:
    return (values.low, values.high) if isinstance(values, Range) else values


def _product(choices: Mapping[str, tuple[Any, ...]]) -> Iterator[Values]:
    return (dict(zip(choices, each, strict=True)) for each in itertools.product(*choices.values()))


def _require_possible(config: Config, name: str, value: Any, probes: Mapping[str, tuple[Any, ...]]) -> None:
    refusal: ValueError | None = None
    for values in itertools.islice(_product(probes), _PROBED):
        try:
            if name == "noise.family":
                noise.get(value)
            chosen(config, values)
            return
        except ValueError as error:
            refusal = error
    raise ValueError(f"space: {name} cannot be {value!r}: {refusal}") from refusal
