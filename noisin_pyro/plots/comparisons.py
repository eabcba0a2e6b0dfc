"""Evaluations of several models side by side, with their standard errors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from noisin_pyro.plots.style import STYLES, figure_with

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PARETO_K = 0.7
"""Pareto k̂ above which an importance-sampling estimate is unreliable (Vehtari et al., 2024)."""


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
        legend.append(Line2D([], [], color="grey", marker="o", markerfacecolor="white", linestyle="", label="k̂ > 0.7"))
    if truth is not None:
        legend.append(axis.axvline(truth, color="black", linestyle="--", linewidth=1, label=f"truth ({truth:.3f})"))
    axis.legend(
        handles=legend, frameon=False, fontsize=8, ncols=len(legend), loc="lower center", bbox_to_anchor=(0.5, 1)
    )
    return figure


def _is_unreliable(row: Mapping[str, Any]) -> bool:
    return row["pareto_k"] is not None and row["pareto_k"] > MAX_PARETO_K


def _row_label(row: Mapping[str, Any]) -> str:
    method = row["method"] if row["guide"] is None else f"{row['method']}, {row['guide']}"
    return f"{row['model']}: {method}"
