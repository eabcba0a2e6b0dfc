"""Draws from a posterior along time, and how far to trust them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import ArrayLike

from noisin_pyro.plots.numbers import UNRELIABLE
from noisin_pyro.plots.style import STYLES, figure_with


def trajectories(
    draws: ArrayLike,
    path: ArrayLike | None = None,
    truth: ArrayLike | None = None,
    probability: float = 0.9,
    singles: int = 3,
    title: str = "",
    legend: bool = True,
    ax: Axes | None = None,
) -> Figure:
    """One unit of one sequence along time: the draws' median, their central interval as a band, and some of them thin.

    Args:
        draws: ``(S, T)``, as ``found.posterior.z_1.sel(chain=0, sequence=0, unit_1=0)`` has them; steps beyond a
            sequence's length, where all are NaN, are left out.
        path: the state with the noise off, ``(T,)``: a dashed line.
        truth: the state that the data came from, ``(T,)``, where it is known: dots.
        probability: of the interval at each step, with equal tails.
        singles: draws to show, evenly spaced among all.
        title: what the axes are headed by.
        legend: whether to have one below the axes; of several panels ``figure.legend`` makes one for all.
        ax: axes to draw on.

    Raises:
        ValueError: for shapes other than these, steps where some draws alone are NaN, or a number out of range.
    """
    z = np.asarray(draws, dtype=float)
    if z.ndim != 2 or not z.size:
        raise ValueError(
            f"draws must have the axes (draw, time), got shape {z.shape}; select one sequence and one unit, and put "
            "chains in one row: .stack(draws=('chain', 'draw')).transpose('draws', 'time')"
        )
    lines = {"path": path, "truth": truth}
    given = {name: np.asarray(line, dtype=float) for name, line in lines.items() if line is not None}
    for name, line in given.items():
        if line.shape != z.shape[1:]:
            raise ValueError(f"{name} must have a number for each of the {z.shape[1]} steps, got shape {line.shape}")
    if not 0 < probability < 1:
        raise ValueError(f"probability must be between 0 and 1, got {probability!r}")
    if not 0 <= singles <= len(z):
        raise ValueError(f"singles must be from 0 to the number of draws, {len(z)}, got {singles!r}")
    real = ~np.isnan(z).any(0)
    if not real.any() or np.isnan(z[:, ~real]).sum() < z[:, ~real].size:
        raise ValueError("draws must have real steps, and be NaN at the others in all draws; drop those that failed")
    figure, (axis,) = figure_with(1, None if ax is None else (ax,))
    blue, orange, black = STYLES[0][0], STYLES[1][0], STYLES[-1][0]
    tail, low, middle, high = 50 * (1 - probability), *(np.full(z.shape[1], np.nan) for _ in range(3))
    low[real], middle[real], high[real] = np.percentile(z[:, real], [tail, 50, 100 - tail], axis=0)
    steps = np.arange(1, z.shape[1] + 1)
    axis.fill_between(steps, low, high, color=blue, alpha=0.25, linewidth=0, label=f"{100 * probability:g}% interval")
    for number, row in enumerate(np.linspace(0, len(z) - 1, singles).round().astype(int)):
        axis.plot(steps, z[row], color=blue, alpha=0.5, linewidth=0.6, label="" if number else "single draws")
    axis.plot(steps, middle, color=blue, linewidth=1.6, label="median")
    if "path" in given:
        seen = np.where(real, given["path"], np.nan)
        axis.plot(steps, seen, "--", color=orange, linewidth=1.4, label="noise off")
    if "truth" in given:
        seen = np.where(real, given["truth"], np.nan)
        axis.plot(steps, seen, "o", color=black, markersize=3, label="truth")
    _dress(axis, "time (steps)", "hidden state", title)
    axis.set_xlim(left=0.5)
    if legend:
        _legend_below(axis)
    return figure


def diagnostics(
    draws: Mapping[str, tuple[ArrayLike, ArrayLike]], num_proposals: int, axes: tuple[Axes, Axes] | None = None
) -> Figure:
    """How far importance weights can be trusted: each sequence's Pareto k̂ (left), and what share of the proposals its
    weights are worth (right), for each source of proposals from its best sequence to its worst.

    An infinite k̂ is an open mark at the edge: above, the tail has too few weights to tell; below, all are equal. The
    legend counts those that are NaN.

    Args:
        draws: by name, ``sample_stats.pareto_k`` and ``effective_proposals`` of a posterior: ``(N,)`` both, or of all
            sequences together one number each.
        num_proposals: how many were drawn of each: ``num_proposals`` of the posterior, or else its ``num_samples``.
        axes: left and right axes to draw on.

    Raises:
        ValueError: nothing to show, numbers that are not of the same sequences, or more effective proposals than there
            were.
    """
    if not draws:
        raise ValueError('draws must hold at least one pair, as in {"prior": (pareto_k, effective_proposals)}')
    pairs = {name: tuple(np.atleast_1d(np.asarray(each, dtype=float)) for each in pair) for name, pair in draws.items()}
    for name, (k, effective) in pairs.items():
        if k.ndim != 1 or k.shape != effective.shape:
            raise ValueError(
                f"draws[{name!r}] must hold a k̂ and an effective sample size for each sequence, got shapes {k.shape} "
                f"and {effective.shape}"
            )
        if effective.max() > num_proposals * (1 + 1e-6):
            raise ValueError(
                f"num_proposals must be as many as were drawn, got {num_proposals!r}, but draws[{name!r}] are worth "
                f"{effective.max():g}"
            )
    figure, (left, right) = figure_with(2, axes)
    for index, (name, (k, effective)) in enumerate(pairs.items()):
        colour, marker = STYLES[index % len(STYLES)]
        look = {"color": colour, "marker": marker, "markersize": 3.5, "linestyle": ""}
        known, order = np.sort(k[~np.isnan(k)]), np.arange(1, len(k) + 1)
        label = name if len(known) == len(k) else f"{name} ({len(k) - len(known)} NaN)"
        left.plot(order[: len(known)], np.where(np.isinf(known), np.nan, known), label=label, **look)
        right.plot(order, -np.sort(-effective) / num_proposals, **look)
        edges = {"transform": left.get_xaxis_transform(), "markerfacecolor": "white", "clip_on": False}
        for edge, infinite in ((0, known == -np.inf), (1, known == np.inf)):
            if infinite.any():
                left.plot(order[: len(known)][infinite], np.full(infinite.sum(), edge), **look, **edges)
    if any(np.isinf(k).any() for k, _ in pairs.values()):
        left.plot([], [], "o", color="grey", markerfacecolor="white", label="infinite")
    left.axhline(UNRELIABLE, color="black", linestyle="--", linewidth=1)
    left.text(1.0, UNRELIABLE, "0.7", transform=left.get_yaxis_transform(), fontsize=8, va="center")
    _dress(left, "sequences, from the best", "Pareto k̂", "k̂: unreliable above 0.7")
    _dress(right, "sequences, from the best", "share of the proposals", "Effective sample size")
    right.set_yscale("log")
    right.set_ylim(0.7 / num_proposals, 1.3)
    right.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    _legend_below(left)
    return figure


def _legend_below(axis: Axes) -> None:
    axis.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _dress(axis: Axes, along: str, quantity: str, title: str) -> None:
    axis.set_title(title)
    axis.set_xlabel(along)
    axis.set_ylabel(quantity)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
