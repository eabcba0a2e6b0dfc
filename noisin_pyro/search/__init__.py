"""Search for the best options: many short runs, of which the best in validation is trained to its end.

It needs Optuna, in a checkout: ``pip install -e ".[sweep]"``.
"""

from noisin_pyro.search.result import SearchResult
from noisin_pyro.search.run import search
from noisin_pyro.search.search_space import Range, Space

__all__ = ["Range", "SearchResult", "Space", "search"]
