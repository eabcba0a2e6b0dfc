"""Curves over epochs: perplexities and spreads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from noisin_pyro.plots.style import STYLES, figure_with, label_axes, legend_below

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, float]]

MAX_MARKERS = 20
"""Approximate number of markers per curve."""


def learning_curves(
    logs: Mapping[str, Rows], axes: tuple[Axes, Axes] | None = None, measure: str = "perplexity"
) -> Figure:
    """Validation (left, noise off) and training (right, with noise) over epochs, as in figure 2 of the paper.

    For runs of more than 20 epochs the y-axis is scaled without the first 5% of the epochs, which would hide the
    differences later on.

    Args:
        logs: name of each run to the rows of its log, with columns ``epoch``, ``valid_…`` and ``train_…``.
        axes: left and right axes to draw on.
        measure: ``"perplexity"`` or ``"nats"`` (nats per step).
    """
    figure, (left, right) = figure_with(2, axes)
    ylabel = {"perplexity": "perplexity", "nats": "nats per step"}[measure]
    for axis, part, title in ((left, "valid", "Validation (noise off)"), (right, "train", "Training (with noise)")):
        for index, (name, rows) in enumerate(logs.items()):
            _plot_column(axis, rows, f"{part}_{measure}", name, index)
        label_axes(axis, title, "epoch", ylabel)
        if measure == "perplexity":
            axis.set_yscale("log")  # equal ratios are equal differences in nats
        _scale_to_late_epochs(axis)
        if measure == "perplexity":
            _set_log_ticks(axis)
    left.legend(frameon=False)
    return figure


def spreads(log: Rows, ax: Axes | None = None) -> Figure:
    """γ of each layer over epochs, from the columns ``gamma_…`` of a log.

    Raises:
        ValueError: a log without rows or without such a column.
    """
    layers = [column for column in (log[0] if log else {}) if column.startswith("gamma_")]
    if not layers:
        raise ValueError("log must have a column gamma_…, got none; pass the rows of a run's log.csv")
    figure, (axis,) = figure_with(1, ax)
    for index, column in enumerate(layers):
        number = column.removeprefix("gamma_")
        _plot_column(axis, log, column, "inputs" if number == "0" else f"layer {number}", index)
    label_axes(axis, "Spread of the noise", "epoch", "γ (standard deviation)")
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)
    return figure


def learned_spreads(
    runs: Mapping[str, Rows],
    ax: Axes | None = None,
    title: str = "Spread of the noise",
    maximum_likelihood: float | None = None,
    floor: float | None = None,
) -> Figure:
    """γ of the first layer over epochs, one curve for each run.

    Args:
        runs: name of each run to the rows of its log, with columns ``epoch`` and ``gamma_1``.
        ax: axes to draw on.
        title: title of the axes.
        maximum_likelihood: the maximum-likelihood γ, where it is known; drawn as a dashed line.
        floor: lower bound of the learned γ; drawn as a dotted line.
    """
    figure, (axis,) = figure_with(1, ax)
    for index, (name, rows) in enumerate(runs.items()):
        _plot_column(axis, rows, "gamma_1", name, index)
    for value, style, name in ((maximum_likelihood, "--", "maximum likelihood"), (floor, ":", "floor")):
        if value is not None:
            axis.axhline(value, color="black", linestyle=style, linewidth=1, label=f"{name} ({value:.2f})")
    label_axes(axis, title, "epoch", "γ (standard deviation)")
    axis.set_ylim(bottom=0)
    legend_below(axis)
    return figure


def _plot_column(axis: Axes, rows: Rows, column: str, name: str, index: int) -> None:
    color, marker = STYLES[index % len(STYLES)]
    epochs, values = [row["epoch"] for row in rows], [row[column] for row in rows]
    every = max(1, len(rows) // MAX_MARKERS)
    axis.plot(epochs, values, color=color, marker=marker, markersize=4, markevery=every, label=name)


def _scale_to_late_epochs(axis: Axes) -> None:
    curves = [np.asarray(line.get_ydata(), dtype=float) for line in axis.lines]
    values = np.concatenate([curve[len(curve) // MAX_MARKERS :] for curve in curves])
    values = values[np.isfinite(values)]
    if len(values) and any(len(curve) > MAX_MARKERS for curve in curves):
        low, high = values.min(), values.max()
        margin = 0.05 * (high - low)
        axis.set_ylim(low - margin, high + margin)


def _set_log_ticks(axis: Axes) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
    low, high = axis.get_ylim()
    is_narrow = high < 4 * low  # a logarithmic locator would find too few ticks
    axis.yaxis.set_major_locator(MaxNLocator(6) if is_narrow else LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8)))
