"""What is compared with what, and the ratios that we want."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from timing.contestants import LAYERS, TRAINING
from timing.shapes import Shape


@dataclass(frozen=True)
class Target:
    """``of`` over ``to``, in time or in peak memory, at most ``limit``."""

    of: str
    to: str
    limit: float
    measure: Literal["time", "memory"] = "time"


@dataclass(frozen=True)
class Comparison:
    """Contestants that take turns.

    Attributes:
        title: in the table.
        entries: a contestant and its shape, by a name.
        base: the entry that ratios are to.
        targets: what we want.
    """

    title: str
    entries: dict[str, tuple[str, Shape]]
    base: str
    targets: tuple[Target, ...] = ()


TABLE_2 = Shape()
SHAPES = {
    "table2-1layer": ("Table 2, one layer: tanh, 256 units, batch 20, window 35, 10,000 words", TABLE_2),
    "table2-2layers": ("Table 2, two layers", replace(TABLE_2, layers=2)),
    "table3": (
        "Table 3: LSTM, 2 layers of 200, batch 32, window 35, 33,278 words",
        Shape("lstm", 2, 200, 32, 35, 33_278, "wikitext-2"),
    ),
    "medium": (
        "Medium LSTM: 2 layers of 650, batch 80, window 35, 10,000 words",
        Shape("lstm", 2, 650, 80, 35, 10_000),
    ),
    "chorales": ("Chorales: tanh, 100 units, batch 20, window 60, 88 keys", Shape("tanh", 1, 100, 20, 60, 88, "jsb")),
}
GROWTH = {"window": 20, "units": 64, "layers": 1, "particles": 1}  # from here, tenfold


def _step(name: str) -> Comparison:
    """All contestants at one shape."""
    title, shape = SHAPES[name]
    names = [each for each in TRAINING if not (shape.is_music and each == "ours-bfloat16")]
    if shape.is_music:
        targets = [Target("ours", "loop", 1.2), Target("ours", "trace-elbo", 1 / 3)]
    else:
        targets = [Target("ours", "plain", 1.0), Target("ours-bfloat16", "plain", 0.6)]
    targets.append(Target("ours", "variational-dropout", 1.0))
    return Comparison(title, {each: (each, shape) for each in names}, "plain", tuple(targets))


def _recurrence(cell: str) -> Comparison:
    title = f"Recurrence alone: {cell}, 256 units, batch 20, window 35, forward and backward"
    targets = (Target("additive", "nn", 1.3), Target("multiplicative", "nn", 1.6))
    return Comparison(title, {each: (each, replace(TABLE_2, cell=cell)) for each in LAYERS}, "nn", targets)


def _growth(axis: str) -> Comparison:
    """Table 2 with one size grown over a decade, by doublings and then to ten times."""
    values = [GROWTH[axis] * times for times in (1, 2, 4, 8, 10)]
    contestants = ("ours",) if axis == "particles" else ("ours", "plain")
    entries = {
        f"{each}, {axis} {value}": (each, replace(TABLE_2, **{axis: value})) for each in contestants for value in values
    }
    limit = None if axis == "units" else 2.3
    targets = [
        Target(f"ours, {axis} {large}", f"ours, {axis} {small}", limit)
        for small, large in zip(values[:3], values[1:4], strict=True)
        if limit is not None
    ]
    first, last = (f"ours, {axis} {value}" for value in (values[0], values[-1]))
    if axis == "particles":
        targets += [Target(last, first, 10.0), Target(last, first, 2.0, "memory")]
    return Comparison(f"Growth in {axis}: table 2, one layer, all else equal", entries, first, tuple(targets))


COMPARISONS: dict[str, Comparison] = {
    **{name: _step(name) for name in SHAPES},
    **{f"recurrence-{cell}": _recurrence(cell) for cell in ("tanh", "lstm")},
    **{f"growth-{axis}": _growth(axis) for axis in GROWTH},
}


def selected(names: tuple[str, ...]) -> list[str]:
    """Comparisons by name, or by what their names begin with (``growth``, ``table2``).

    Raises:
        ValueError: a name that nothing begins with.
    """
    for name in names:
        if not any(each.startswith(name) for each in COMPARISONS):
            raise ValueError(f"shapes must be among {', '.join(COMPARISONS)}, or how some begin, got {name!r}")
    return [each for each in COMPARISONS if not names or each.startswith(names)]
