"""What all pictures share."""

from __future__ import annotations

from typing import cast

from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind tell apart, and a marker each for print in grey.
STYLES = tuple(
    zip(("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"), "osD^vX*", strict=True)
)


def figure_with(count: int, axes: tuple[Axes, ...] | None) -> tuple[Figure, tuple[Axes, ...]]:
    """The axes that are given and their figure, or as many new ones side by side."""
    if axes is not None:
        return cast(Figure, axes[0].figure), axes
    figure = Figure(figsize=(4.6 * count, 3.6), dpi=150, layout="constrained")
    return figure, tuple(figure.add_subplot(1, count, index + 1) for index in range(count))
