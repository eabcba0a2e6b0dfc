"""The shapes of the laws of noise."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from noisin_pyro.plots.style import STYLES


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


def _panel(axis: Axes, panel: Panel, ends: tuple[float, float]) -> None:
    colour = STYLES[panel.discrete][0]
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
