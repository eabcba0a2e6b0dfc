"""``noisin reproduce``: run the rows of the papers' tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro.conf

from noisin_pyro._tables import aligned
from noisin_pyro.reproduction import Recipe, ReproductionOptions, reproduce
from noisin_pyro.reproduction.recipes import TABLES
from noisin_pyro.reproduction.report import TITLES
from noisin_pyro.training.options import Named, Options, default


@dataclass(frozen=True)
class Reproduce(Options):
    """Run the rows of one of the papers' tables, and write the table.

    Without options it follows the protocol in docs/reproduction.md.

    The same command resumes after an interruption. Finished rows are not run again.

    The exit status is 1 if rows are left or diverge.
    """

    table: tyro.conf.Positional[
        Annotated[
            Literal[
                "table2",
                "table3",
                "figure2",
                "zaremba",
                "icml-m",
                "icml-l",
                "icml-wikitext-m",
                "icml-wikitext-l",
                "pydocs-noises",
                "pydocs-claims",
            ],
            Named(metavar="TABLE"),
        ]
    ]
    """table2: Penn Treebank, plain cells, four methods. table3: WikiText-2, LSTM. figure2: one sigmoid layer.
    zaremba: Penn Treebank, the small LSTM of Zaremba et al. (2014).
    icml-m, icml-l, icml-wikitext-m, icml-wikitext-l: the published paper's medium and large LSTMs.
    pydocs-noises: every family of noise, compared on the built-in text. pydocs-claims: claims without a table."""

    rows: Annotated[tuple[str, ...], default("all", "ROW [ROW ...]")] = ()
    """Names of rows, or prefixes of names, in the order in which to run them."""

    list: bool = False
    """List the rows with the paper's numbers and the candidates that are compared on validation, and run nothing."""

    seeds: Annotated[int | None, default("the row's")] = None
    """Number of runs of each row, with different seeds. All rows are run with the first seed, then with the second."""

    trials: Annotated[int | None, default("the row's")] = None
    """Number of trials per row, without trials beyond the grid."""

    trial_epochs: Annotated[int | None, default("the row's")] = None
    """Number of epochs of each trial. The best values in validation are trained again, with other seeds."""

    epochs: Annotated[int | None, default("the row's")] = None
    """Maximum number of epochs of each run. Finished rows with fewer epochs are continued."""

    minutes: Annotated[float | None, default("no limit", "FLOAT")] = None
    """Time limit in minutes: stop after the epoch that reaches it. The same command resumes."""

    ensemble_samples: Annotated[int | None, default("50")] = None
    """Number of noisy runs that the ensemble test averages over; 0 skips it."""

    matmul_precision: Annotated[Literal["float32", "bfloat16"] | None, default("the row's", "{float32,bfloat16}")] = (
        None
    )
    """Precision of matrix products with weights."""

    hidden_size: Annotated[int | None, default("the row's")] = None
    """Number of units of each layer, for smaller networks."""

    data: Annotated[str | None, default("the row's", "NAME|FOLDER")] = None
    """Text to use instead of the row's data set."""

    data_root: Annotated[Path | None, default("$NOISIN_DATA, the cache, a download", "FOLDER")] = None
    """Folder that contains ptb and wikitext-2."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Device on which to compute."""

    folder: Annotated[Path, Named(metavar="FOLDER")] = Path("results/reproduction")
    """Folder for configurations, logs, results and tables. Runs with other options need another folder."""

    def run(self) -> int:
        """Run the rows, and print the table.

        Returns:
            The exit status: 1 if rows are left, because time is up, another process runs them or they diverge.

        Raises:
            ValueError: no such row, an invalid option, or records of other options in the folder.
        """
        recipes = self._recipes()
        if self.list:
            print(f"{TITLES[self.table]}\n")
            print(aligned([_cells(recipe) for recipe in recipes]))
            return 0
        for option, value in (("seeds", self.seeds), ("trials", self.trials), ("trial epochs", self.trial_epochs)):
            if value is not None and value < 1:
                raise ValueError(f"{option} must be at least 1, got {value}")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes must be a positive number, got {self.minutes}")
        options = ReproductionOptions(self.seeds, self.trials, self.trial_epochs, self.minutes, self._changes())
        done = reproduce(recipes, self.folder, options)
        path = self.folder / f"{self.table}.md"
        if path.exists():
            print(path.read_text(encoding="utf-8"))
        print(f"{'all rows are done' if done else 'rows are left: the same command resumes'}; {self.folder}")
        return 0 if done else 1

    def _recipes(self) -> list[Recipe]:
        recipes = TABLES[self.table]()
        if not self.rows:
            return recipes
        chosen: dict[str, Recipe] = {}
        for start in self.rows:
            named = [recipe for recipe in recipes if recipe.row == start]
            named = named or [recipe for recipe in recipes if recipe.row.startswith(start)]
            if not named:
                raise ValueError(
                    f"rows: {self.table} has none that begins with {start!r}, only {', '.join(r.row for r in recipes)}"
                )
            chosen |= {recipe.row: recipe for recipe in named}
        return list(chosen.values())

    def _changes(self) -> dict[str, Any]:
        given = {
            "optimization.epochs": self.epochs,
            "model.matmul_precision": self.matmul_precision,
            "run.ensemble_samples": self.ensemble_samples,
            "model.hidden_size": self.hidden_size,
            "data.name": self.data,
            "data.root": self.data_root,
        }
        return {"run.device": self.device} | {name: value for name, value in given.items() if value is not None}


def _cells(recipe: Recipe) -> tuple[str, str, str]:
    paper = "no number" if recipe.paper_test is None else f"{recipe.paper_test:.1f}"
    candidates = "; ".join(f"{name} of {', '.join(map(str, values))}" for name, values in recipe.space.items())
    return recipe.row, f"paper: {paper}", f"on validation: {candidates or 'nothing'}"
