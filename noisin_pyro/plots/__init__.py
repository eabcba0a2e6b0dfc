"""Pictures of results. Each function draws on the axes it is given, or on a figure of its own; pyplot is not used.

In a notebook a figure that a cell ends with is shown, after ``%matplotlib inline``.
"""

from noisin_pyro.plots.curves import learned_spreads, learning_curves, spreads
from noisin_pyro.plots.laws import Panel, families
from noisin_pyro.plots.numbers import comparison
from noisin_pyro.plots.posteriors import diagnostics, trajectories

__all__ = [
    "Panel",
    "comparison",
    "diagnostics",
    "families",
    "learned_spreads",
    "learning_curves",
    "spreads",
    "trajectories",
]
