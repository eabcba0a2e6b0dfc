"""Posterior draws over time, and diagnostics of importance sampling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from noisin_pyro._diagnostics import MAX_PARETO_K
from noisin_pyro.plots.style import STYLES, figure_with, label_axes, legend_below

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def trajectories(
    draws: ArrayLike,
    noise_off: ArrayLike | None = None,
    truth: ArrayLike | None = None,
    probability: float = 0.9,
    num_draws: int = 3,
    title: str = "",
    legend: bool = True,
    ax: Axes | None = None,
) -> Figure:
    """Posterior of one unit of one sequence over time: median, central interval as a band, and a few single draws.

    Args:
        draws: ``(S, T)``, for example ``data.posterior.z_1.sel(chain=0, sequence=0, unit_1=0)``. Steps beyond the
            length of the sequence, where all draws are NaN, are left out.
        noise_off: the state with the noise off, ``(T,)``; drawn as a dashed line.
        truth: the state that generated the data, ``(T,)``, where it is known; drawn as dots.
        probability: probability of the equal-tailed interval at each step.
        num_draws: number of single draws to show, evenly spaced in ``draws``.
        title: title of the axes.
        legend: whether to draw a legend below the axes; ``figure.legend`` makes one for several panels.
        ax: axes to draw on.

    Raises:
        ValueError: other shapes, a step where some but not all draws are NaN, or a number out of range.
    """
    z = np.asarray(draws, dtype=float)
    if z.ndim != 2 or not z.size:
        raise ValueError(
            f"draws must have the axes (draw, time), got shape {z.shape}; select one sequence and one unit, and "
            "stack the chains: .stack(draws=('chain', 'draw')).transpose('draws', 'time')"
        )
    lines = {"noise_off": noise_off, "truth": truth}
    references = {name: np.asarray(line, dtype=float) for name, line in lines.items() if line is not None}
    for name, line in references.items():
        if line.shape != z.shape[1:]:
            raise ValueError(f"{name} must have a value for each of the {z.shape[1]} steps, got shape {line.shape}")
    if not 0 < probability < 1:
        raise ValueError(f"probability must be between 0 and 1, got {probability!r}")
    if not 0 <= num_draws <= len(z):
        raise ValueError(f"num_draws must be from 0 to the number of draws, {len(z)}, got {num_draws!r}")
    real = ~np.isnan(z).any(0)
    if not real.any() or np.isnan(z[:, ~real]).sum() < z[:, ~real].size:
        raise ValueError(
            "draws must be finite at some step, and at each step NaN in all draws or in none; drop failed draws"
        )
    figure, (axis,) = figure_with(1, ax)
    blue, orange, black = STYLES[0][0], STYLES[1][0], STYLES[-1][0]
    tail, low, middle, high = 50 * (1 - probability), *(np.full(z.shape[1], np.nan) for _ in range(3))
    low[real], middle[real], high[real] = np.percentile(z[:, real], [tail, 50, 100 - tail], axis=0)
    steps = np.arange(1, z.shape[1] + 1)
    axis.fill_between(steps, low, high, color=blue, alpha=0.25, linewidth=0, label=f"{100 * probability:g}% interval")
    for number, row in enumerate(np.linspace(0, len(z) - 1, num_draws).round().astype(int)):
        axis.plot(steps, z[row], color=blue, alpha=0.5, linewidth=0.6, label="" if number else "single draws")
    axis.plot(steps, middle, color=blue, linewidth=1.6, label="median")
    if "noise_off" in references:
        line = np.where(real, references["noise_off"], np.nan)
        axis.plot(steps, line, "--", color=orange, linewidth=1.4, label="noise off")
    if "truth" in references:
        line = np.where(real, references["truth"], np.nan)
        axis.plot(steps, line, "o", color=black, markersize=3, label="truth")
    label_axes(axis, title, "time (steps)", "hidden state")
    axis.set_xlim(left=0.5)
    if legend:
        legend_below(axis)
    return figure


def diagnostics(
    draws: Mapping[str, tuple[ArrayLike, ArrayLike]], num_proposals: int, axes: tuple[Axes, Axes] | None = None
) -> Figure:
    """Reliability of importance weights: Pareto k̂ (left) and relative effective sample size (right) of each sequence.

    The sequences of each proposal distribution are sorted from best to worst, separately in the two plots. An infinite
    k̂ is a hollow marker at the edge: at the top if the tail has too few weights to fit, at the bottom if all weights
    are equal. The legend counts k̂ that are NaN.

    Args:
        draws: name to ``(pareto_k, effective_proposals)`` of the ``sample_stats`` of a posterior, both ``(N,)``, or
            both a single number for all sequences together.
        num_proposals: number of proposals per sequence: ``num_proposals`` of the posterior, or else ``num_samples``.
        axes: left and right axes to draw on.

    Raises:
        ValueError: no draws, shapes that differ, or more effective proposals than proposals.
    """
    if not draws:
        raise ValueError("draws must hold at least one pair, got none; pass {name: (pareto_k, effective_proposals)}")
    pairs = {
        name: tuple(np.atleast_1d(np.asarray(values, dtype=float)) for values in pair) for name, pair in draws.items()
    }
    for name, (k, effective) in pairs.items():
        if k.ndim != 1 or k.shape != effective.shape:
            raise ValueError(
                f"draws[{name!r}] must hold a k̂ and an effective sample size for each sequence, got shapes {k.shape} "
                f"and {effective.shape}; pass two arrays of shape (N,)"
            )
        if effective.max() > num_proposals * (1 + 1e-6):
            raise ValueError(
                f"num_proposals must be the number of proposals per sequence, got {num_proposals!r}, but the effective "
                f"sample size of draws[{name!r}] is {effective.max():g}; pass the num_proposals of that posterior"
            )
    figure, (left, right) = figure_with(2, axes)
    from matplotlib.ticker import FuncFormatter

    for index, (name, (k, effective)) in enumerate(pairs.items()):
        color, marker = STYLES[index % len(STYLES)]
        style = {"color": color, "marker": marker, "markersize": 3.5, "linestyle": ""}
        sorted_k, order = np.sort(k[~np.isnan(k)]), np.arange(1, len(k) + 1)
        label = name if len(sorted_k) == len(k) else f"{name} ({len(k) - len(sorted_k)} NaN)"
        left.plot(order[: len(sorted_k)], np.where(np.isinf(sorted_k), np.nan, sorted_k), label=label, **style)
        right.plot(order, -np.sort(-effective) / num_proposals, **style)
        at_edge = {"transform": left.get_xaxis_transform(), "markerfacecolor": "white", "clip_on": False}
        for edge, infinite in ((0, sorted_k == -np.inf), (1, sorted_k == np.inf)):
            if infinite.any():
                left.plot(order[: len(sorted_k)][infinite], np.full(infinite.sum(), edge), **style, **at_edge)
    if any(np.isinf(k).any() for k, _ in pairs.values()):
        left.plot([], [], "o", color="grey", markerfacecolor="white", label="infinite")
    left.axhline(MAX_PARETO_K, color="black", linestyle="--", linewidth=1)
    left.text(1.0, MAX_PARETO_K, str(MAX_PARETO_K), transform=left.get_yaxis_transform(), fontsize=8, va="center")
    label_axes(left, f"k̂: unreliable above {MAX_PARETO_K}", "sequences, best first", "Pareto k̂")
    label_axes(right, "Effective sample size", "sequences, best first", "share of proposals")
    right.set_yscale("log")
    right.set_ylim(0.7 / num_proposals, 1.3)
    right.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    legend_below(left)
    return figure
