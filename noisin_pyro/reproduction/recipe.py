"""A row of a table as a named, readable configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from noisin_pyro.training import Config

Candidates = Mapping[str, tuple[Any, ...]]

SEARCH_SEED, FIRST_SEED = 10, 11
"""The papers' tables: the seed of all trials, and the first seed of the runs with the chosen values. Version 0.1 used
lower ones."""

TRIAL_SEED = "run.seed"

# The paper of table 2, table 3 and figure 2; the other one, "the published paper", is in ``icml_recipes``.
DRAFT = "Noise-Based Regularizers for Recurrent Neural Networks (draft)"


@dataclass(frozen=True)
class Recipe:
    """One row of a table.

    Attributes:
        table: ``"table2"``, ``"table3"``, ``"figure2"``, ``"zaremba"``, one of the published paper's (``"icml-m"``), or
            one of our own studies (``"pydocs-noises"``).
        row: its name in that table, and the name of its folder.
        method: its name in the paper.
        group: rows of one group differ in the method alone, and are compared with each other.
        source: the paper, and the place in it.
        paper_test: test perplexity in the paper, if it has one.
        paper_valid: validation perplexity in the paper, if it has one.
        unspecified: settings that the paper does not specify, with our choice.
        config: what the paper states, and our choices.
        space: what is chosen on validation: candidates by dotted names of options.
        ladder: for an option in ``space``, all values that may be tried, in order, including those of ``space``. While
            the best value is the smallest or the largest that was tried, the next one beyond is tried too.
        further_trials: maximum number of such trials.
        trial_epochs: number of epochs of each trial.
        trial_patience: number of epochs without improvement after which a trial stops; ``None`` for no early stopping.
        trial_seeds: seeds of the trials. With several, every candidate has a trial with each, and its validation loss
            is their mean.
        seeds: number of runs of the row with the chosen values.
        first_seed: the seed of the first of these runs; the others follow.
    """

    table: str
    row: str
    method: str
    group: str
    source: str
    config: Config
    paper_test: float | None = None
    paper_valid: float | None = None
    unspecified: Sequence[str] = ()
    space: Candidates = field(default_factory=dict)
    ladder: Candidates = field(default_factory=dict)
    further_trials: int = 0
    trial_epochs: int = 10
    trial_patience: int | None = None
    trial_seeds: Sequence[int] = (SEARCH_SEED,)
    seeds: int = 1
    first_seed: int = FIRST_SEED

    @property
    def trial_space(self) -> Candidates:
        """What is searched: the candidates, with each of several seeds."""
        several = self.space and len(self.trial_seeds) > 1
        return {**self.space, TRIAL_SEED: tuple(self.trial_seeds)} if several else self.space


def slug(method: str) -> str:
    """The name of a method in a folder's name."""
    return method.lower().replace(" + ", "-").replace(", ", "-").replace("*", "-learned")
