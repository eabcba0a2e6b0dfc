"""What is compared with what, and the ratios that we want."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Literal

from timing.contestants import ENGINES, GPU_ONLY, LAYERS, SOFTMAX, TRAINING
from timing.shapes import Shape


@dataclass(frozen=True)
class Entry:
    """A contestant at a shape, and the entry of the same comparison that its ratio is to."""

    contestant: str
    shape: Shape
    base: str


@dataclass(frozen=True)
class Target:
    """``of`` over ``to``, two entries, in time or in peak memory: at most ``limit``, or, if None, only told."""

    of: str
    to: str
    limit: float | None = None
    measure: Literal["time", "memory"] = "time"


@dataclass(frozen=True)
class Comparison:
    """Entries, by name, that take turns, and what we want of them."""

    title: str
    entries: dict[str, Entry]
    targets: tuple[Target, ...]

    def only(self, contestants: tuple[str, ...]) -> Comparison:
        """Of these contestants, or of all if none are named."""
        kept = {name: entry for name, entry in self.entries.items() if entry.contestant in contestants}
        return replace(self, entries=kept) if contestants else self

    def on(self, device: str) -> Comparison:
        """Without those that need a GPU, where there is none."""
        kept = {name: entry for name, entry in self.entries.items() if entry.contestant not in GPU_ONLY}
        return self if device == "cuda" else replace(self, entries=kept)


TABLE_2 = Shape()
SHAPES = {
    "table2-1layer": ("Table 2, one layer: tanh, 256 units, batch 20, window 35, 10,000 words", TABLE_2),
    "table2-2layers": (
        "Table 2, two layers: tanh, 256 units, batch 20, window 35, 10,000 words",
        replace(TABLE_2, layers=2),
    ),
    "table3": (
        "Table 3: LSTM, two layers of 200, batch 32, window 35, 33,278 words",
        Shape("lstm", 2, 200, 32, 35, 33_278, "wikitext-2"),
    ),
    "medium": (
        "Medium LSTM: two layers of 650, batch 80, window 35, 10,000 words",
        Shape("lstm", 2, 650, 80, 35, 10_000),
    ),
    "chorales": ("Chorales: tanh, 100 units, batch 20, window 60, 88 keys", Shape("tanh", 1, 100, 20, 60, 88, "jsb")),
}
GROWTH = {"window": 20, "units": 64, "layers": 1, "particles": 1}  # from here, tenfold


def _step(title: str, shape: Shape) -> Comparison:
    """All contestants at one shape."""
    names = [name for name in TRAINING if not (shape.is_music and name == "ours-bfloat16")]  # too small to gain
    if shape.is_music:
        targets = [Target("ours", "loop", 1.2), Target("ours", "trace-elbo", 1 / 3)]
    else:
        targets = [Target("ours", "plain", 1.0), Target("ours-bfloat16", "plain", 0.6)]
    targets += [Target("ours", "plain-captured", 1.2), Target("ours", "variational-dropout", 1.0)]
    return Comparison(title, {name: Entry(name, shape, "plain") for name in names}, tuple(targets))


def _recurrence(cell: str) -> Comparison:
    title = f"Recurrence alone, forward and backward: {cell}, 256 units, batch 20, window 35"
    entries = {name: Entry(name, replace(TABLE_2, cell=cell), "nn") for name in LAYERS | ENGINES}
    return Comparison(title, entries, (Target("additive", "nn", 1.3), Target("multiplicative", "nn", 1.6)))


def _softmax(shape: Shape) -> Comparison:
    title = f"Softmax alone, forward and backward: {shape.units} units, {shape.steps} steps, {shape.outputs:,} words"
    return Comparison(title, {name: Entry(name, shape, "cross-entropy") for name in SOFTMAX}, ())


def _growth(axis: str) -> Comparison:
    """Table 2 with one size grown: doubled three times, and tenfold. Ratios are to the contestant's smallest."""
    values = [GROWTH[axis] * times for times in (1, 2, 4, 8, 10)]
    contestants = ("ours",) if axis == "particles" else ("ours", "plain")

    def name(contestant: str, value: int) -> str:
        return f"{contestant}, {axis} {value}"

    entries = {
        name(each, value): Entry(each, replace(TABLE_2, **{axis: value}), name(each, values[0]))
        for each in contestants
        for value in values
    }
    doubled = None if axis == "units" else 2.3
    targets = [
        Target(name("ours", large), name("ours", small), doubled) for small, large in itertools.pairwise(values[:-1])
    ]
    ends = name("ours", values[-1]), name("ours", values[0])
    targets.append(Target(*ends, limit=10.0 if axis == "particles" else None))
    if axis == "particles":
        targets.append(Target(*ends, limit=2.0, measure="memory"))
    return Comparison(f"Growth in {axis}: table 2, one layer, all else equal", entries, tuple(targets))


COMPARISONS: dict[str, Comparison] = {
    **{name: _step(*described) for name, described in SHAPES.items()},
    **{f"recurrence-{cell}": _recurrence(cell) for cell in ("tanh", "lstm")},
    "softmax-table2": _softmax(TABLE_2),
    "softmax-table3": _softmax(SHAPES["table3"][1]),
    **{f"growth-{axis}": _growth(axis) for axis in GROWTH},
}


def selected(names: tuple[str, ...]) -> list[str]:
    """Comparisons by name, or by what their names begin with (``growth``, ``table2``); all if none are named.

    Raises:
        ValueError: a name that nothing begins with.
    """
    for name in names:
        if not any(each.startswith(name) for each in COMPARISONS):
            raise ValueError(f"shapes must be among {', '.join(COMPARISONS)}, or begin some of them, got {name!r}")
    return [each for each in COMPARISONS if not names or each.startswith(names)]
