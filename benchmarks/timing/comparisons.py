"""Which steps are timed side by side, and the ratios between them that have a target."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from timing.contestants import GPU_ONLY, LAYERS, SOFTMAX, TRAINING
from timing.shapes import Shape


@dataclass(frozen=True)
class Entry:
    """A contestant at a shape.

    Attributes:
        base: the entry of the same comparison that its ratio is taken to.
        noise_free: the entry that is this library's own step without noise at the same shape (with one particle).
    """

    contestant: str
    shape: Shape
    base: str
    noise_free: str


@dataclass(frozen=True)
class Target:
    """The ratio of entry ``of`` to entry ``to`` is to be at most ``limit``; without a limit it is only reported."""

    of: str
    to: str
    limit: float | None = None
    measure: Literal["time", "memory"] = "time"


@dataclass(frozen=True)
class Comparison:
    """Entries that are timed side by side, and targets for their ratios."""

    title: str
    entries: dict[str, Entry]
    targets: tuple[Target, ...] = ()

    def select(self, contestants: tuple[str, ...], device: str) -> Comparison:
        """Restrict it to these contestants (all if empty) and to those that run on ``device``."""
        entries = {
            name: entry
            for name, entry in self.entries.items()
            if (not contestants or entry.contestant in contestants)
            and (device == "cuda" or entry.contestant not in GPU_ONLY)
        }
        return replace(self, entries=entries)


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
GROWTH = {"window": 20, "units": 64, "layers": 1, "particles": 1}  # the smallest value of each size that is varied


def _entries(contestants: Iterable[str], shape: Shape, base: str, noise_free: str) -> dict[str, Entry]:
    return {name: Entry(name, shape, base, noise_free) for name in contestants}


def _training_step(title: str, shape: Shape) -> Comparison:
    # bfloat16 does not pay for products as small as the chorales'
    contestants = [name for name in TRAINING if not (shape.is_music and name == "ours-bfloat16")]
    if shape.is_music:
        targets = [Target("ours", "loop", 1.2), Target("ours", "trace-elbo", 1 / 3)]
    else:
        targets = [Target("ours", "plain", 1.0), Target("ours-bfloat16", "plain", 0.6)]
    targets += [Target("ours", "plain-captured", 1.2), Target("ours", "variational-dropout", 1.0)]
    return Comparison(title, _entries(contestants, shape, "plain", "ours-noise-free"), tuple(targets))


def _recurrence(cell: str) -> Comparison:
    title = f"Recurrent layer alone, forward and backward: {cell}, 256 units, batch 20, window 35"
    entries = _entries(LAYERS, replace(TABLE_2, cell=cell), "nn", "noise-free")
    return Comparison(title, entries, (Target("additive", "nn", 1.3), Target("multiplicative", "nn", 1.6)))


def _softmax(shape: Shape) -> Comparison:
    title = (
        f"Softmax alone, forward and backward: {shape.units} units, {shape.num_steps} steps, {shape.outputs:,} words"
    )
    return Comparison(title, _entries(SOFTMAX, shape, "cross-entropy", "softmax"))  # a softmax has no noise


def _growth(axis: str) -> Comparison:
    """Table 2 with one size doubled three times and then ten times its smallest; ratios are to the smallest."""
    values = [GROWTH[axis] * factor for factor in (1, 2, 4, 8, 10)]

    def name(contestant: str, value: int) -> str:
        if axis == "particles" and contestant == "ours-noise-free":
            value = 1  # without noise there is nothing to sample
        return f"{contestant}, {axis} {value}"

    entries = {
        name(contestant, value): Entry(
            contestant,
            replace(TABLE_2, **{axis: value}),
            name(contestant, values[0]),
            name("ours-noise-free", value),
        )
        for contestant in ("plain", "ours-noise-free", "ours")
        for value in values
        if axis != "particles" or contestant == "ours" or (contestant == "ours-noise-free" and value == 1)
    }
    limit = None if axis == "units" else 2.3
    targets = [
        Target(name("ours", large), name("ours", small), limit) for small, large in itertools.pairwise(values[:-1])
    ]
    ends = name("ours", values[-1]), name("ours", values[0])
    targets.append(Target(*ends, limit=10.0 if axis == "particles" else None))
    if axis == "particles":
        targets.append(Target(*ends, limit=2.0, measure="memory"))
    return Comparison(f"Growth in {axis}: table 2, one layer, all else equal", entries, tuple(targets))


COMPARISONS: dict[str, Comparison] = {
    **{name: _training_step(*title_and_shape) for name, title_and_shape in SHAPES.items()},
    **{f"recurrence-{cell}": _recurrence(cell) for cell in ("tanh", "lstm")},
    "softmax-table2": _softmax(TABLE_2),
    "softmax-table3": _softmax(SHAPES["table3"][1]),
    **{f"growth-{axis}": _growth(axis) for axis in GROWTH},
}


def matching(prefixes: tuple[str, ...]) -> list[str]:
    """Names of the comparisons that begin with one of ``prefixes`` (``growth``, ``table2``); all if it is empty.

    Raises:
        ValueError: if no comparison begins with one of them.
    """
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in COMPARISONS):
            raise ValueError(
                f"comparisons must be among {', '.join(COMPARISONS)}, or a prefix of some of them, got {prefix!r}"
            )
    return [name for name in COMPARISONS if not prefixes or name.startswith(prefixes)]
