"""The subcommands of ``noisin``, a module for each: a dataclass whose fields are the options, with a method ``run``."""

from __future__ import annotations

import importlib
from typing import Any

SUMMARIES = {
    "train": "Train a noisy recurrent network and its deterministic twin, and compare them.",
    "sweep": "Search for the noise that is best in validation, and train with it to the end.",
    "evaluate": "Score the best model of a run on one part of its data, or on other data.",
    "compare": "Score the best models of several runs on the same data, in one table.",
    "generate": "Generate text with the best model of a run.",
    "forecast": "Forecast the steps after the end of each series with the best model of a run.",
    "families": "List the families of noise, with their forms and options.",
    "reproduce": "Run the rows of one of the papers' tables, and write the table.",
}
"""First line of each subcommand's help, repeated here so that ``noisin --help`` imports no subcommand."""


def load(name: str) -> type[Any]:
    """Import a subcommand's module and return its class."""
    return getattr(importlib.import_module(f"{__name__}.{name}"), name.capitalize())
