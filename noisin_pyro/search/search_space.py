"""What is searched: fields of a configuration by their dotted names, each with choices or a range."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from noisin_pyro import noise
from noisin_pyro._lookup import known
from noisin_pyro.training.config import Config, is_own_family, with_values
from noisin_pyro.training.options import plain

MAX_COMBINATIONS = 10_000
"""A space with more combinations is sampled as if it were infinite."""

_MAX_PROBES = 1_000  # combinations that are tried before a value is refused
# Trials with different data cannot be compared; folders are set for each trial.
_NOT_SEARCHED = {
    "data.name", "data.root", "data.files", "data.min_count", "data.max_vocabulary", "data.eval_batch_size",
    "data.level", "data.valid_fraction", "data.test_fraction",
    "run.folder", "run.resume", "run.twin",
}  # fmt: skip


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``, both included; integers if the field is an integer.

    Args:
        low: the lower bound.
        high: the upper bound.
        log: sample uniformly in the logarithm.

    Raises:
        ValueError: bounds that are not finite or not in order, or not positive with ``log``.
    """

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            object.__setattr__(self, name, plain(getattr(self, name)))
        numbers = all(type(bound) in (int, float) and math.isfinite(bound) for bound in (self.low, self.high))
        if not numbers or not self.low < self.high:
            raise ValueError(f"range must be from a number to a larger one, got {self.low!r} to {self.high!r}")
        if self.log and self.low <= 0:
            raise ValueError(f"range with log must be of positive numbers, got {self.low!r} to {self.high!r}")


Space = Mapping[str, tuple[Any, ...] | Range]
"""What is searched: choices or a :class:`Range` for each dotted name of a field of :class:`Config`."""

Values = dict[str, Any]
"""A value for each dotted name."""


def is_float(name: str) -> bool:
    """Whether the field with this dotted name takes any real number."""
    hint = _fields()[name]
    return float in (hint, *get_args(hint))


def validate(space: Space, config: Config) -> None:
    """Check that every value of the space is possible in some trial.

    Raises:
        ValueError: an empty space, an unknown name, no choices, a repeated choice, or a value that :class:`Config`
            refuses with all other values.
    """
    if not space:
        raise ValueError("space is empty; give at least one field to search, such as noise.spread")
    for name, values in space.items():
        known("space: a name", name, _fields())
        if isinstance(values, Range):
            continue
        if not isinstance(values, tuple) or not values:
            raise ValueError(f"space: {name} must have a tuple of choices or a Range, got {values!r}")
        if len(set(values)) < len(values):
            raise ValueError(f"space: {name} has a choice twice in {values!r}; leave one out")
    bounds = {name: (each.low, each.high) for name, each in space.items() if isinstance(each, Range)}
    choices: dict[str, tuple[Any, ...]] = {**space, **bounds}  # pyright: ignore[reportAssignmentType]
    for name, values in choices.items():
        for value in values:
            _require_possible(config, name, choices | {name: (value,)})


def combinations(space: Space) -> list[Values] | None:
    """Every combination, the last field changing fastest; ``None`` if there is a range, or too many."""
    choices = {name: values for name, values in space.items() if not isinstance(values, Range)}
    if len(choices) < len(space) or math.prod(map(len, choices.values())) > MAX_COMBINATIONS:
        return None
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def to_json(space: Space) -> dict[str, Any]:
    """The space for JSON: choices as lists, and ranges as dictionaries."""
    return {
        name: dataclasses.asdict(values) if isinstance(values, Range) else list(values)
        for name, values in space.items()
    }


def from_json(space: Mapping[str, Any]) -> Space:
    """The space that :func:`to_json` was given."""
    return {name: Range(**values) if isinstance(values, dict) else tuple(values) for name, values in space.items()}


def _fields() -> dict[str, Any]:
    """The dotted names of the fields that can be searched, with their types."""
    return {
        name: hint
        for group, options in get_type_hints(Config).items()
        for field, hint in get_type_hints(options).items()
        if (name := f"{group}.{field}") not in _NOT_SEARCHED
    }


def _require_possible(config: Config, name: str, choices: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse the one choice of ``name`` if no combination with it is a configuration."""
    refusal: ValueError | None = None
    for values in itertools.islice(itertools.product(*choices.values()), _MAX_PROBES):
        try:
            with_values(config, dict(zip(choices, values, strict=True)))
            if name == "noise.noise" and not is_own_family(choices[name][0]):
                noise.get(choices[name][0])
            return
        except ValueError as error:
            refusal = error
    raise ValueError(f"space: {name} cannot be {choices[name][0]!r}: {refusal}") from refusal
