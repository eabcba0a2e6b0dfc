"""Densities of the families of noise."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from noisin_pyro.plots.style import STYLES, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Panel:
    """One law in the plot of ``families``.

    Attributes:
        name, forms: titles of the panel, left and right.
        description: lines of text in the panel.
        points: values of ε.
        values: density at each point, or probability if ``discrete``.
        discrete: whether the law is discrete.
    """

    name: str
    forms: str
    description: Sequence[str]
    points: Sequence[float]
    values: Sequence[float]
    discrete: bool


def families(panels: Sequence[Panel], interval: tuple[float, float] = (-4.0, 4.0), columns: int = 4) -> Figure:
    """Density of each law, standardized to mean 0 and variance 1, in a grid of panels with the same range of ε.

    Continuous laws are filled curves, discrete laws are stems.

    Args:
        panels: the laws.
        interval: range of ε.
        columns: number of columns of the grid.

    Raises:
        ValueError: no panels.
    """
    if not panels:
        raise ValueError("panels must hold at least one law, got none; make them from nz.noise.describe()")
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(2.9 * columns, 2.1 * rows + 0.5)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, panel in zip(grid, panels, strict=False):
        _draw_panel(axis, panel, interval)
    for axis in grid[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle(
        "Noise ε of each family, standardized to mean 0 and variance 1 (blue: density; orange: probability)"
    )
    return figure


def _draw_panel(axis: Axes, panel: Panel, interval: tuple[float, float]) -> None:
    color = STYLES[panel.discrete][0]
    if panel.discrete:
        axis.vlines(panel.points, 0, panel.values, color=color, linewidth=1.5)
        axis.plot(panel.points, panel.values, "o", color=color, markersize=3.5)
    else:
        axis.plot(panel.points, panel.values, color=color, linewidth=1.2)
        axis.fill_between(panel.points, panel.values, color=color, alpha=0.25, linewidth=0)
    axis.set_title(panel.name, fontsize=9, fontweight="bold", loc="left")
    axis.set_title(panel.forms, fontsize=7, loc="right")
    text = "\n".join(textwrap.fill(line, 26) for line in panel.description)
    axis.text(0.98, 0.97, text, transform=axis.transAxes, ha="right", va="top", fontsize=7, linespacing=1.3)
    axis.set_xlim(*interval)
    axis.set_ylim(0, 1.6 * max(filter(math.isfinite, panel.values)))  # leaves space for the text
    axis.axvline(0, color="grey", linewidth=0.6, linestyle=":")
    axis.tick_params(labelsize=7)
    axis.spines[["top", "right"]].set_visible(False)
