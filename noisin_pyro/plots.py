"""Pictures of results. Each function draws on the axes it is given, or on a figure of its own; pyplot is not used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

Rows = Sequence[Mapping[str, float]]

# Okabe and Ito's colours, which the colour-blind tell apart, and a marker each for print in grey.
_STYLES = tuple(
    zip(("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"), "osD^vX*", strict=True)
)


def learning_curves(
    logs: Mapping[str, Rows], axes: tuple[Axes, Axes] | None = None, measure: str = "perplexity"
) -> Figure:
    """Figure 2 of the paper: validation (left, noise off) and training (right, as trained) against epochs.

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


def _figure_with(count: int, axes: tuple[Axes, ...] | None) -> tuple[Figure, tuple[Axes, ...]]:
    if axes is not None:
        return cast(Figure, axes[0].figure), axes
    figure = Figure(figsize=(4.6 * count, 3.6), dpi=150, layout="constrained")
    return figure, tuple(figure.add_subplot(1, count, index + 1) for index in range(count))


def _line(axis: Axes, rows: Rows, column: str, name: str, index: int) -> None:
    colour, marker = _STYLES[index % len(_STYLES)]
    epochs, values = [row["epoch"] for row in rows], [row[column] for row in rows]
    axis.plot(epochs, values, color=colour, marker=marker, markersize=4, label=name)


def _label(axis: Axes, title: str, quantity: str) -> None:
    axis.set_title(title)
    axis.set_xlabel("epoch")
    axis.set_ylabel(quantity)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
