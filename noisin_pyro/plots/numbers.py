"""Held-out numbers side by side, with their errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from noisin_pyro.plots.style import STYLES, figure_with

UNRELIABLE = 0.7
"""Pareto k̂ above which a number of importance sampling is not to be trusted."""


def comparison(rows: Sequence[Mapping[str, Any]], ax: Axes | None = None, truth: float | None = None) -> Figure:
    """Nats per step, a line for each number: to either side one standard error, thick over the noise, thin over the
    sequences. Colour and marker are of the kind of number; a hollow marker says that Pareto k̂ is above 0.7.

    Args:
        rows: records as ``compare(...).rows`` has them.
        ax: to draw on.
        truth: the exact negative log-likelihood in nats per step, where it is known: a dashed line.

    Raises:
        ValueError: no rows, or a truth that is not finite.
    """
    if not rows:
        raise ValueError("rows must hold at least one number, got none; give those of nz.compare(...)")
    if truth is not None and not math.isfinite(truth):
        raise ValueError(f"truth must be finite, in nats per step, got {truth!r}; leave it out where it is not known")
    figure, (axis,) = figure_with(1, None if ax is None else (ax,))
    if ax is None:
        figure.set_size_inches(8.0, 1.3 + 0.3 * len(rows))
    names = [row["model"] for row in rows]
    gaps = [0.0, *(0.6 * (name != before) for before, name in itertools.pairwise(names))]  # between models
    places = [index + gap for index, gap in enumerate(itertools.accumulate(gaps))]
    kinds = sorted({row["kind"] for row in rows})
    for place, row in zip(places, rows, strict=True):
        colour, marker = STYLES[kinds.index(row["kind"])]
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
        Line2D([], [], color=c, marker=m, linestyle="", label=k) for (c, m), k in zip(STYLES, kinds, strict=False)
    ]
    if any(map(_hollow, rows)):
        legend.append(Line2D([], [], color="grey", marker="o", markerfacecolor="white", linestyle="", label="k̂ > 0.7"))
    if truth is not None:
        legend.append(axis.axvline(truth, color="black", linestyle="--", linewidth=1, label=f"truth ({truth:.3f})"))
    axis.legend(
        handles=legend, frameon=False, fontsize=8, ncols=len(legend), loc="lower center", bbox_to_anchor=(0.5, 1)
    )
    return figure


def _hollow(row: Mapping[str, Any]) -> bool:
    return row["pareto_k"] is not None and row["pareto_k"] > UNRELIABLE


def _named(row: Mapping[str, Any]) -> str:
    method = row["method"] if row["guide"] is None else f"{row['method']}, {row['guide']}"
    return f"{row['model']}: {method}"
