"""Evaluations of several models side by side, with their standard errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from noisin_pyro._diagnostics import MAX_PARETO_K
from noisin_pyro.plots.style import STYLES, figure_with

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def comparison(rows: Sequence[Mapping[str, Any]], ax: Axes | None = None, truth: float | None = None) -> Figure:
    """Nats per step of each evaluation, with one standard error on either side.

    The thick bar is the Monte Carlo error, the thin bar the error over the data (sequences, or blocks of a text). Color
    and marker show the kind of number; a hollow marker shows that Pareto k̂ is above 0.7.

    Args:
        rows: records, as in ``compare(...).rows``.
        ax: axes to draw on.
        truth: the exact negative log-likelihood in nats per step, where it is known; drawn as a dashed line.

    Raises:
        ValueError: no rows, or a truth that is not finite.
    """
    if not rows:
        raise ValueError("rows must hold at least one record, got none; pass those of nz.compare(...)")
    if truth is not None and not math.isfinite(truth):
        raise ValueError(f"truth must be finite, in nats per step, got {truth!r}; leave it out if it is not known")
    figure, (axis,) = figure_with(1, ax)
    from matplotlib.lines import Line2D

    if ax is None:
        figure.set_size_inches(8.0, 1.3 + 0.3 * len(rows))
    names = [row["model"] for row in rows]
    gaps = [0.0, *(0.6 * (name != previous) for previous, name in itertools.pairwise(names))]  # between models
    positions = [index + gap for index, gap in enumerate(itertools.accumulate(gaps))]
    kinds = sorted({row["kind"] for row in rows})
    for position, row in zip(positions, rows, strict=True):
        color, marker = STYLES[kinds.index(row["kind"])]
        nats = row["nats_per_step"]
        for error, width in ((row["standard_error"], 1), (row["monte_carlo_error"], 5)):
            axis.hlines(position, nats - error, nats + error, colors=color, linewidth=width)
        axis.plot(
            nats, position, marker, color=color, markersize=5, markerfacecolor="white" if _is_unreliable(row) else color
        )
    axis.set_yticks(positions, [_row_label(row) for row in rows], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("nats per step (lower is better)\n± one standard error (thick: Monte Carlo, thin: over the data)")
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    legend = [
        Line2D([], [], color=c, marker=m, linestyle="", label=k) for (c, m), k in zip(STYLES, kinds, strict=False)
    ]
    if any(map(_is_unreliable, rows)):
        style: dict[str, Any] = {"color": "grey", "marker": "o", "markerfacecolor": "white", "linestyle": ""}
        legend.append(Line2D([], [], **style, label=f"k̂ > {MAX_PARETO_K}"))
    if truth is not None:
        legend.append(axis.axvline(truth, color="black", linestyle="--", linewidth=1, label=f"truth ({truth:.3f})"))
    axis.legend(
        handles=legend, frameon=False, fontsize=8, ncols=len(legend), loc="lower center", bbox_to_anchor=(0.5, 1)
    )
    return figure


def seed_comparison(
    values: Mapping[str, Sequence[float]], xlabel: str, baselines: Sequence[str] = (), ax: Axes | None = None
) -> Figure:
    """A number of each method with each seed, best mean first, and the means of the baselines as dashed lines.

    Args:
        values: a number for each seed, by method.
        xlabel: label of the axis of the numbers.
        baselines: methods that get a line, of those in ``values``.
        ax: axes to draw on.

    Raises:
        ValueError: no method has a number.
    """
    means = {name: sum(numbers) / len(numbers) for name, numbers in values.items() if numbers}
    if not means:
        raise ValueError("values must hold a number for at least one method, got none")
    figure, (axis,) = figure_with(1, ax)
    if ax is None:
        figure.set_size_inches(7.0, 1.3 + 0.22 * len(means))
    names = sorted(means, key=means.__getitem__)
    for position, name in enumerate(names):
        color, marker = STYLES[1 if name in baselines else 0]
        axis.plot(values[name], [position] * len(values[name]), marker, color=color, markersize=4, alpha=0.6)
        axis.plot(means[name], position, "|", color=color, markersize=12)
    for style, name in zip(("--", ":", "-."), (name for name in baselines if name in means), strict=False):
        axis.axvline(means[name], color=STYLES[1][0], linestyle=style, linewidth=1, label=name)
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel(f"{xlabel}\n(a dot for each seed, a bar at their mean)")
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure


def _is_unreliable(row: Mapping[str, Any]) -> bool:
    return row["pareto_k"] is not None and row["pareto_k"] > MAX_PARETO_K


def _row_label(row: Mapping[str, Any]) -> str:
    method = row["method"] if row["guide"] is None else f"{row['method']}, {row['guide']}"
    return f"{row['model']}: {method}"
