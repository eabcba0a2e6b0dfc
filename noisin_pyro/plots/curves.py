"""Curves along training: perplexities and spreads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from noisin_pyro.plots.style import STYLES, figure_with

Rows = Sequence[Mapping[str, float]]

SHOWN = 20
"""About so many markers a curve."""


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
    figure, (left, right) = figure_with(2, axes)
    label = {"perplexity": "perplexity", "nats": "nats per step"}[measure]
    for axis, part, title in ((left, "valid", "Validation (noise off)"), (right, "train", "Training (as trained)")):
        for index, (name, rows) in enumerate(logs.items()):
            _line(axis, rows, f"{part}_{measure}", name, index)
        _label(axis, title, label)
        if measure == "perplexity":  # equal ratios are equal gains
            axis.set_yscale("log")
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.yaxis.set_minor_locator(NullLocator())
        _cut_the_start(axis)
        if measure == "perplexity":
            low, high = axis.get_ylim()
            narrow = high < 4 * low  # a logarithmic locator would find hardly a tick
            axis.yaxis.set_major_locator(MaxNLocator(6) if narrow else LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
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
    figure, (axis,) = figure_with(1, None if ax is None else (ax,))
    for index, column in enumerate(layers):
        number = column.removeprefix("gamma_")
        _line(axis, log, column, "inputs" if number == "0" else f"layer {number}", index)
    _label(axis, "Spread of the noise", "γ (standard deviation)")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)
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
    figure, (axis,) = figure_with(1, None if ax is None else (ax,))
    for index, (name, rows) in enumerate(runs.items()):
        _line(axis, rows, "gamma_1", name, index)
    for value, style, name in ((likeliest, "--", "likeliest γ"), (floor, ":", "floor")):
        if value is not None:
            axis.axhline(value, color="black", linestyle=style, linewidth=1, label=f"{name} ({value:.2f})")
    _label(axis, title, "γ (standard deviation)")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.14))
    return figure


def _line(axis: Axes, rows: Rows, column: str, name: str, index: int) -> None:
    colour, marker = STYLES[index % len(STYLES)]
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
