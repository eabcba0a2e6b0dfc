"""Plots of results. Each function draws on the given axes or on a new figure, and returns the figure.

pyplot is not used: save a figure with ``figure.savefig``, or, in a notebook, end a cell with it after
``%matplotlib inline``.
"""

from noisin_pyro.plots.comparisons import comparison, seed_comparison
from noisin_pyro.plots.curves import learned_spreads, learning_curves, spreads
from noisin_pyro.plots.densities import Panel, families
from noisin_pyro.plots.fan_charts import forecasts
from noisin_pyro.plots.posteriors import diagnostics, trajectories

__all__ = [
    "Panel",
    "comparison",
    "diagnostics",
    "families",
    "forecasts",
    "learned_spreads",
    "learning_curves",
    "seed_comparison",
    "spreads",
    "trajectories",
]
