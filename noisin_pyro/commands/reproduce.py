"""``noisin reproduce``: the papers' tables, every row with its configuration, log and result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro.conf

from noisin_pyro.commands._options import Named
from noisin_pyro.reproduction import Recipe, ReproductionOptions, reproduce
from noisin_pyro.reproduction.recipes import TABLES
from noisin_pyro.reproduction.report import TITLES


@dataclass(frozen=True)
class Reproduce:
    """Run the rows of one of the papers' tables, and write the table.

    Without options it runs the protocol in docs/reproduction.md.

    The same command resumes after an interruption. Finished rows are not run again.
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

    rows: Annotated[tuple[str, ...], Named(metavar="ROW", help_behavior_hint="(default: all)")] = ()
    """Names of rows, or beginnings of names, in the order in which to run them."""

    list: bool = False
    """List the rows with the paper's numbers and the candidates that are compared on validation, and run nothing."""

    seeds: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: the row's)")] = None
    """Number of runs of each row, with seeds of their own: all rows with the first, then all with the second."""

    trials: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: the row's)")] = None
    """Number of trials per row; disables trials beyond the grid."""

    trial_epochs: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: the row's)")] = None
    """Number of epochs of each candidate. The best in validation is trained anew, with other seeds."""

    epochs: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: the row's)")] = None
    """Maximum number of epochs of each run. Finished rows are continued if they had fewer."""

    minutes: Annotated[float | None, Named(metavar="FLOAT", help_behavior_hint="(default: no limit)")] = None
    """Stop after the epoch in which this many minutes have passed; the same command resumes."""

    ensemble_samples: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: 50)")] = None
    """Number of noisy runs in the ensemble that is tested; 0 tests none."""

    matmul_precision: Annotated[
        Literal["float32", "bfloat16"] | None,
        Named(metavar="{float32,bfloat16}", help_behavior_hint="(default: the row's)"),
    ] = None
    """Type that factors and results of products with weights are rounded to."""

    hidden_size: Annotated[int | None, Named(metavar="INT", help_behavior_hint="(default: the row's)")] = None
    """Units of each layer, for a table of smaller networks."""

    data: Annotated[str | None, Named(metavar="NAME|FOLDER", help_behavior_hint="(default: the row's)")] = None
    """Other data, for a smaller table."""

    data_root: Annotated[
        Path | None, Named(metavar="FOLDER", help_behavior_hint="(default: $NOISIN_DATA, the cache, a download)")
    ] = None
    """Folder with ptb and wikitext-2."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Device to compute on."""

    folder: Path = Path("results/reproduction")
    """Folder for configurations, logs, results and tables. Runs with other options need another one."""

    def run(self) -> None:
        """Run the rows, and print the table.

        Raises:
            ValueError: no such row, an invalid option, or records of other options in the folder.
        """
        recipes = self._recipes()
        if self.list:
            print(f"{TITLES[self.table]}\n")
            for recipe in recipes:
                print(_line(recipe))
            return
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
        print(f"{'all rows done' if done else 'not all rows done: the same command resumes'}; {self.folder}")

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


def _line(recipe: Recipe) -> str:
    paper = "no number" if recipe.paper_test is None else f"{recipe.paper_test:.1f}"
    candidates = "; ".join(f"{name} of {', '.join(map(str, values))}" for name, values in recipe.space.items())
    return f"{recipe.row:<22} paper: {paper:<10} on validation: {candidates or 'nothing'}"
