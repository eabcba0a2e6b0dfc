"""Pictures of results. Each function draws on the axes it is given, or on a figure of its own; pyplot is not used."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

Rows = Sequence[Mapping[str, float]]

# Okabe and Ito's colours, which the colour-blind tell apart, and a marker each for print in grey.
_STYLES = tuple(
    zip(("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"), "osD^vX*", strict=True)
)

SHOWN = 20
"""About so many markers a curve."""

UNRELIABLE = 0.7
"""Pareto k̂ above which a number of importance sampling is not to be trusted."""


def learning_curves(
    logs: Mapping[str, Rows], axes: tuple[Axes, Axes] | None = None, measure: str = "perplexity"
) -> Figure:
    """Figure 2 of the paper: validation (left, noise off) and training (right, as trained) against epochs.

    Of long runs the first twentieth of the epochs may be above the picture: it would hide how the others differ.

    Args:
        logs: for each run its name and the rows of its log, with ``epoch``, ``valid_…`` and ``train_…``.
        axes: left and right axes to draw on.
        measure: ``"perplexity"`` or ``"nats"`` (nats per step).

    Returns:
        The figure, to be shown or saved with ``savefig``.
    """
    figure, (left, right) = _figure_with(2, axes)
    label = {"perplexity": "perplexity", "nats": "nats per step"}[measure]
    for axis, part, title in ((left, "valid", "Validation (noise off)"), (right, "train", "Training (as trained)")):
        for index, (name, rows) in enumerate(logs.items()):
            _line(axis, rows, f"{part}_{measure}", name, index)
        _label(axis, title, label)
        if measure == "perplexity":  # equal ratios are equal gains
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.yaxis.set_minor_locator(NullLocator())
        _cut_the_start(axis)
    left.legend(frameon=False)
    return figure


def spreads(log: Rows, ax: Axes | None = None) -> Figure:
    """γ of each layer at the end of each epoch: the columns ``gamma_…`` of a log.

    Raises:
        ValueError: a log without rows or without such a column.
    """
    layers = [column for column in (log[0] if log else {}) if column.startswith("gamma_")]
    if not layers:
        raise ValueError("the log has no column gamma_…; give the rows of a run's log.csv")
    figure, (axis,) = _figure_with(1, None if ax is None else (ax,))
    for index, column in enumerate(layers):
        number = column.removeprefix("gamma_")
        _line(axis, log, column, "inputs" if number == "0" else f"layer {number}", index)
    _label(axis, "Spread of the noise", "γ (standard deviation)")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)
    return figure


def scores(rows: Sequence[Mapping[str, Any]], methods: Mapping[str, str], ax: Axes | None = None) -> Figure:
    """Held-out numbers of several models: a line each, a mark for each method with its error over sequences.

    Bounds are hollow: the negative log-likelihood lies left of them.

    Args:
        rows: ``contestant``, ``method``, ``kind``, ``nats_per_step`` and ``standard_error`` of each number.
        methods: those to show, each with its name in the legend.
        ax: axes to draw on.

    Raises:
        ValueError: no rows of these methods.
    """
    names = list(dict.fromkeys(row["contestant"] for row in rows if row["method"] in methods))
    if not names:
        raise ValueError(f"rows must hold a number of {', '.join(methods)}, got none; evaluate something first")
    figure, (axis,) = _figure_with(1, None if ax is None else (ax,))
    if ax is None:
        figure.set_size_inches(7.5, 0.55 * len(names) + 1.4)
    for index, (method, label) in enumerate(methods.items()):
        colour, marker = _STYLES[index % len(_STYLES)]
        shift = 0.7 * ((index + 0.5) / len(methods) - 0.5)
        for row in (row for row in rows if row["method"] == method):
            axis.errorbar(
                row["nats_per_step"], names.index(row["contestant"]) + shift, xerr=row["standard_error"], label=label,
                color=colour, marker=marker, markersize=5, linewidth=1, linestyle="none",
                markerfacecolor="white" if row["kind"] == "bound" else colour,
            )  # fmt: skip
            label = None
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel("test, nats per step (± error over sequences; hollow: an upper bound)")
    axis.grid(alpha=0.3, axis="x")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def learned_spreads(
    runs: Mapping[str, Rows],
    ax: Axes | None = None,
    title: str = "Spread of the noise",
    likeliest: float | None = None,
    floor: float | None = None,
) -> Figure:
    """γ of the first layer along training, a curve for each way of learning it (DESIGN, section 3).

    Args:
        runs: for each way its name and the rows of its log, with ``epoch`` and ``gamma_1``.
        ax: axes to draw on.
        title: what the axes are headed by.
        likeliest: the γ of the greatest likelihood, where it is known: a dashed line.
        floor: the least γ that learning can reach: a dotted line.
    """
    figure, (axis,) = _figure_with(1, None if ax is None else (ax,))
    for index, (name, rows) in enumerate(runs.items()):
        _line(axis, rows, "gamma_1", name, index)
    for value, style, name in ((likeliest, "--", "likeliest γ"), (floor, ":", "floor")):
        if value is not None:
            axis.axhline(value, color="black", linestyle=style, linewidth=1, label=f"{name} ({value:.2f})")
    _label(axis, title, "γ (standard deviation)")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return figure


@dataclass(frozen=True)
class Panel:
    """A law to draw.

    Attributes:
        name, forms: what the panel is headed by, left and right.
        words: the law in words, a line each.
        points: where ``heights`` are its density or, if ``discrete``, its probabilities.
    """

    name: str
    forms: str
    words: Sequence[str]
    points: Sequence[float]
    heights: Sequence[float]
    discrete: bool


def families(panels: Sequence[Panel], ends: tuple[float, float] = (-4.0, 4.0), columns: int = 4) -> Figure:
    """The shape of each law of noise, brought to mean 0 and variance 1: a small panel each, on one axis of ε.

    Continuous laws are filled curves, discrete ones stems.

    Raises:
        ValueError: no panels.
    """
    if not panels:
        raise ValueError("panels must hold at least one law, got none; make them from nz.noise.describe()")
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(2.9 * columns, 2.1 * rows + 0.5), dpi=150, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, panel in zip(grid, panels, strict=False):
        _panel(axis, panel, ends)
    for axis in grid[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle("Noise ε of each family, brought to mean 0 and variance 1 (blue: density; orange: probability)")
    return figure


def comparison(rows: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Figure:
    """Nats per step, a line for each number: to either side one standard error, thick over the noise, thin over the
    sequences. Colour and marker are of the kind of number; a hollow marker says that Pareto k̂ is above 0.7.

    Args:
        rows: records as ``compare(...).rows`` has them.
        ax: to draw on.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("rows must hold at least one number, got none; give those of nz.compare(...)")
    figure, (axis,) = _figure_with(1, None if ax is None else (ax,))
    if ax is None:
        figure.set_size_inches(8.0, 1.3 + 0.3 * len(rows))
    names = [row["model"] for row in rows]
    gaps = [0.0, *(0.6 * (name != before) for before, name in itertools.pairwise(names))]  # between models
    places = [index + gap for index, gap in enumerate(itertools.accumulate(gaps))]
    kinds = sorted({row["kind"] for row in rows})
    for place, row in zip(places, rows, strict=True):
        colour, marker = _STYLES[kinds.index(row["kind"])]
        nats = row["nats_per_step"]
        for error, width in ((row["standard_error"], 1), (row["monte_carlo_error"], 5)):
            axis.hlines(place, nats - error, nats + error, colors=colour, linewidth=width)
        axis.plot(nats, place, marker, color=colour, markersize=5, markerfacecolor="white" if _hollow(row) else colour)
    axis.set_yticks(places, [_named(row) for row in rows], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel(
        "nats per step (lower is better)\nbars: one standard error, thick over the noise, thin over sequences"
    )
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    legend = [
        Line2D([], [], color=c, marker=m, linestyle="", label=k) for (c, m), k in zip(_STYLES, kinds, strict=False)
    ]
    if any(map(_hollow, rows)):
        legend.append(Line2D([], [], color="grey", marker="o", markerfacecolor="white", linestyle="", label="k̂ > 0.7"))
    axis.legend(
        handles=legend, frameon=False, fontsize=8, ncols=len(legend), loc="lower center", bbox_to_anchor=(0.5, 1)
    )
    return figure


def _hollow(row: Mapping[str, Any]) -> bool:
    return row["pareto_k"] is not None and row["pareto_k"] > UNRELIABLE


def _named(row: Mapping[str, Any]) -> str:
    method = row["method"] if row["guide"] is None else f"{row['method']}, {row['guide']}"
    return f"{row['model']}: {method}"


def _panel(axis: Axes, panel: Panel, ends: tuple[float, float]) -> None:
    colour = _STYLES[panel.discrete][0]
    if panel.discrete:
        axis.vlines(panel.points, 0, panel.heights, color=colour, linewidth=1.5)
        axis.plot(panel.points, panel.heights, "o", color=colour, markersize=3.5)
    else:
        axis.plot(panel.points, panel.heights, color=colour, linewidth=1.2)
        axis.fill_between(panel.points, panel.heights, color=colour, alpha=0.25, linewidth=0)
    axis.set_title(panel.name, fontsize=9, fontweight="bold", loc="left")
    axis.set_title(panel.forms, fontsize=7, loc="right")
    words = "\n".join(textwrap.fill(line, 26) for line in panel.words)
    axis.text(0.98, 0.97, words, transform=axis.transAxes, ha="right", va="top", fontsize=7, linespacing=1.3)
    axis.set_xlim(*ends)
    axis.set_ylim(0, 1.6 * max(filter(math.isfinite, panel.heights)))  # room for the words
    axis.axvline(0, color="grey", linewidth=0.6, linestyle=":")
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)


def _figure_with(count: int, axes: tuple[Axes, ...] | None) -> tuple[Figure, tuple[Axes, ...]]:
    if axes is not None:
        return cast(Figure, axes[0].figure), axes
    figure = Figure(figsize=(4.6 * count, 3.6), dpi=150, layout="constrained")
    return figure, tuple(figure.add_subplot(1, count, index + 1) for index in range(count))


def _line(axis: Axes, rows: Rows, column: str, name: str, index: int) -> None:
    colour, marker = _STYLES[index % len(_STYLES)]
    epochs, values = [row["epoch"] for row in rows], [row[column] for row in rows]
    every = max(1, len(rows) // SHOWN)
    axis.plot(epochs, values, color=colour, marker=marker, markersize=4, markevery=every, label=name)


def _cut_the_start(axis: Axes) -> None:
    curves = [np.asarray(line.get_ydata(), dtype=float) for line in axis.lines]
    ends = [curve[len(curve) // SHOWN :] for curve in curves]
    values = np.concatenate(ends)
    values = values[np.isfinite(values)]
    if len(values) and any(len(curve) > SHOWN for curve in curves):
        low, high = values.min(), values.max()
        room = 0.05 * (high - low)
        axis.set_ylim(low - room, high + room)


def _label(axis: Axes, title: str, quantity: str) -> None:
    axis.set_title(title)
    axis.set_xlabel("epoch")
    axis.set_ylabel(quantity)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
