"""Styles and layout shared by all plots. matplotlib is imported when a function is called, not with the package."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colorblind-safe palette, and a marker for each color, for prints in grayscale.
STYLES = tuple(
    zip(("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"), "osD^vX*", strict=True)
)


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, independent of pyplot and of its backend."""
    if "matplotlib" not in sys.modules:
        _import_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def _import_matplotlib() -> None:
    """Import matplotlib, whose import fails if MPLBACKEND is unknown, although only pyplot needs a backend."""
    backend = os.environ.pop("MPLBACKEND", None)
    import matplotlib

    if backend is not None:
        os.environ["MPLBACKEND"] = backend
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend


def figure_with(count: int, axes: tuple[Axes, ...] | Axes | None) -> tuple[Figure, tuple[Axes, ...]]:
    """The given axes and their figure, or ``count`` new axes side by side."""
    if axes is not None:
        given = axes if isinstance(axes, tuple) else (axes,)
        return cast("Figure", given[0].figure), given
    figure = new_figure(4.6 * count, 3.6)
    return figure, tuple(figure.add_subplot(1, count, index + 1) for index in range(count))


def label_axes(axis: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Set title and labels, with integer ticks along x and a light grid."""
    from matplotlib.ticker import MaxNLocator

    axis.set_title(title)
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def legend_below(axis: Axes) -> None:
    """Place the legend below the axes."""
    axis.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
