"""What is kept of a row once it has been run: one JSON file for each seed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noisin_pyro._files import write_json
from noisin_pyro.recipes import Recipe
from noisin_pyro.training import Config, Result
from noisin_pyro.training.config import to_json
from noisin_pyro.training.kinds import checked
from noisin_pyro.training.rundir.layout import CONFIG, LOG
from noisin_pyro.training.rundir.metrics_log import Row
from noisin_pyro.training.rundir.metrics_log import read as read_log

NOT_OF_THE_ROW = ("run", "seed"), ("run", "folder"), ("data", "root")


@dataclass(frozen=True)
class Record:
    """One row with one seed: the paper's numbers and ours, and all that it takes to run it again.

    Attributes:
        table, row, method, group, source, unsaid: the :class:`~noisin_pyro.recipes.Recipe`'s.
        paper_test_perplexity, paper_validation_perplexity: what the paper reports.
        test_perplexity, validation_perplexity: ours, noise off.
        ensemble_test_perplexity: averaged over noisy runs; ``None`` if nothing is random.
        ensemble_monte_carlo_error: its standard error over the noise, in perplexity; ``None`` without an ensemble, and
            in records of version 0.1.
        seed: of the weights and the noise.
        epochs, best_epoch: how many there were, and which was best in validation: the numbers are its.
        seconds: of all epochs and the last tests, by the clock.
        spreads: γ at the best epoch.
        chosen: what was chosen on validation, by trials with a seed of their own.
        config: every option.
        log: a row an epoch.
        environment: commit, versions, processor, device, threads and processes.
    """

    table: str
    row: str
    method: str
    group: str
    source: str
    unsaid: list[str]
    paper_test_perplexity: float | None
    paper_validation_perplexity: float | None
    test_perplexity: float
    validation_perplexity: float
    ensemble_test_perplexity: float | None
    seed: int
    epochs: int
    best_epoch: int
    seconds: float
    spreads: Mapping[str, float]
    chosen: Mapping[str, Any]
    config: Mapping[str, Any]
    log: list[Row]
    environment: Mapping[str, Any]
    ensemble_monte_carlo_error: float | None = None

    @property
    def columns(self) -> int:
        """Columns that the held-out texts were read in: in version 0.1 those of the batches in training."""
        data = self.config["data"]
        return data.get("eval_batch_size") or data["batch_size"]


def record(recipe: Recipe, config: Config, chosen: Mapping[str, Any], result: Result) -> Record:
    """What is to be kept of a finished run."""
    ensemble, error = result.ensemble, None
    if ensemble is not None:
        error = ensemble.perplexity * ensemble.monte_carlo_error  # nats per step: the derivative of the exponential
    began, rows = json.loads((result.folder / CONFIG).read_text(encoding="utf-8")), read_log(result.folder / LOG)
    return Record(
        table=recipe.table,
        row=recipe.row,
        method=recipe.method,
        group=recipe.group,
        source=recipe.source,
        unsaid=list(recipe.unsaid),
        paper_test_perplexity=recipe.paper_test,
        paper_validation_perplexity=recipe.paper_valid,
        test_perplexity=result.test.perplexity,
        validation_perplexity=result.valid.perplexity,
        ensemble_test_perplexity=None if ensemble is None else ensemble.perplexity,
        seed=config.run.seed,
        epochs=len(rows),
        best_epoch=result.best_epoch,
        seconds=round(result.seconds, 1),
        spreads={key: value for key, value in rows[result.best_epoch - 1].items() if key.startswith("gamma_")},
        chosen=dict(chosen),
        config=options(config),
        log=rows,
        environment={key: began[key] for key in ("commit", "versions", "processor", "device", "threads", "processes")},
        ensemble_monte_carlo_error=error,
    )


def of_recipe(found: Record, recipe: Recipe, chosen: Mapping[str, Any]) -> Record:
    """The same run as a record of another table's row."""
    return dataclasses.replace(
        found, table=recipe.table, row=recipe.row, method=recipe.method, group=recipe.group, source=recipe.source,
        unsaid=list(recipe.unsaid), paper_test_perplexity=recipe.paper_test,
        paper_validation_perplexity=recipe.paper_valid, chosen=dict(chosen),
    )  # fmt: skip


def options(config: Config) -> dict[str, Any]:
    """Every option by group, but for those that say where things are, and the seed."""
    told = json.loads(to_json(config))
    for group, name in NOT_OF_THE_ROW:
        del told[group][name]
    return told


def differing(expected: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The options, by dotted name, that two sets of all options differ in: what the first has, and what the second."""
    default = options(Config())  # an option may be newer than what is found
    pairs = {
        f"{group}.{name}": (value, found[group].get(name, default[group][name]))
        for group, values in expected.items()
        for name, value in values.items()
    }
    return {name: (one, other) for name, (one, other) in pairs.items() if one != other}


def path_of(folder: Path, recipe: Recipe, seed: int) -> Path:
    """Where the record of a row and a seed is."""
    return folder / recipe.table / recipe.row / f"seed-{seed}.json"


def write(path: Path, found: Record) -> None:
    """Keep it, whole or not at all."""
    write_json(path, dataclasses.asdict(found))


def read(path: Path) -> Record:
    """The record in a file.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return checked(Record(**json.loads(path.read_bytes())))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it, to run its row once more") from error


def read_equal(folder: Path, config: Config) -> Record | None:
    """A record in ``folder``, of any table, made with these options and this seed; ``None`` if there is none."""
    wanted = options(config)
    for path in sorted(folder.glob(f"*/*/seed-{config.run.seed}.json")):
        if (found := read(path)).config == wanted:
            return found
    return None


def read_records(folder: Path, table: str) -> list[Record]:
    """Every record of a table in ``folder``, by row and seed."""
    return [read(path) for path in sorted((folder / table).glob("*/seed-*.json"))]
