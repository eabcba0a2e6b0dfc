"""Records of finished runs: one JSON file for each row and seed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from noisin_pyro._files import write_json
from noisin_pyro.reproduction.recipe import Recipe
from noisin_pyro.training import Config, Result
from noisin_pyro.training.config import flat, to_json
from noisin_pyro.training.rundir.layout import CONFIG, LOG
from noisin_pyro.training.rundir.metrics_log import Row
from noisin_pyro.training.rundir.metrics_log import read as read_log
from noisin_pyro.training.type_checks import check_types

_NOT_COMPARED = ("run", "seed"), ("run", "folder"), ("data", "root")
_ENVIRONMENT = ("commit", "versions", "processor", "device", "threads", "processes")


@dataclass(frozen=True)
class Record:
    """A row with one seed: the paper's numbers and ours, and all that is needed to run it again.

    Attributes:
        table, row, method, group, source, unspecified: as in :class:`Recipe`.
        paper_test_perplexity, paper_validation_perplexity: what the paper reports.
        test_perplexity, validation_perplexity: measured here, noise off.
        ensemble_test_perplexity: averaged over noisy runs; ``None`` if nothing is random.
        ensemble_monte_carlo_error: its standard error over the noise, in perplexity; ``None`` without an ensemble, and
            in records of version 0.1.
        seed: of the weights and the noise.
        epochs: number of epochs.
        best_epoch: the epoch with the best validation; the numbers are those of its model.
        seconds: duration of all epochs and the final tests.
        spreads: γ at the best epoch.
        chosen: the values that were chosen on validation, by trials with a seed of their own.
        config: every option.
        log: a row for each epoch.
        environment: commit, versions, processor, device, threads and processes.
    """

    table: str
    row: str
    method: str
    group: str
    source: str
    unspecified: list[str]
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
        """Number of columns that held-out texts were read in; in version 0.1 the batch size of training."""
        data = self.config["data"]
        return data.get("eval_batch_size") or data["batch_size"]


def record(recipe: Recipe, config: Config, chosen: Mapping[str, Any], result: Result) -> Record:
    """The record of a finished run."""
    ensemble, error = result.ensemble, None
    if ensemble is not None:
        error = ensemble.perplexity * ensemble.monte_carlo_error  # nats per step: the derivative of the exponential
    start, rows = json.loads((result.folder / CONFIG).read_text(encoding="utf-8")), read_log(result.folder / LOG)
    return Record(
        **_of_recipe(recipe, chosen),
        test_perplexity=result.test.perplexity,
        validation_perplexity=result.valid.perplexity,
        ensemble_test_perplexity=None if ensemble is None else ensemble.perplexity,
        seed=config.run.seed,
        epochs=len(rows),
        best_epoch=result.best_epoch,
        seconds=round(result.seconds, 3),
        spreads={key: value for key, value in rows[result.best_epoch - 1].items() if key.startswith("gamma_")},
        config=options(config),
        log=rows,
        environment={key: start.get(key) for key in _ENVIRONMENT},
        ensemble_monte_carlo_error=error,
    )


def with_recipe(record: Record, recipe: Recipe, chosen: Mapping[str, Any]) -> Record:
    """The same run as a record of a row of another table."""
    return dataclasses.replace(record, **_of_recipe(recipe, chosen))


def _of_recipe(recipe: Recipe, chosen: Mapping[str, Any]) -> dict[str, Any]:
    names = ("table", "row", "method", "group", "source")
    return {name: getattr(recipe, name) for name in names} | {
        "unspecified": list(recipe.unspecified),
        "paper_test_perplexity": recipe.paper_test,
        "paper_validation_perplexity": recipe.paper_valid,
        "chosen": dict(chosen),
    }


def options(config: Config) -> dict[str, Any]:
    """Every option by group, except the seed and locations."""
    groups = json.loads(to_json(config))
    for group, name in _NOT_COMPARED:
        del groups[group][name]
    return groups


def differences(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The options in which two configurations differ, by dotted name, with the values of both."""
    before = flat(options(Config())) | flat(actual)  # options that are newer than a record have their defaults
    return {name: (value, before[name]) for name, value in flat(expected).items() if value != before[name]}


def path_of(folder: Path, recipe: Recipe, seed: int) -> Path:
    """The file of the record of a row with a seed."""
    return folder / recipe.table / recipe.row / f"seed-{seed}.json"


def write(path: Path, record: Record) -> None:
    """Write a record atomically."""
    write_json(path, dataclasses.asdict(record))


def read(path: Path) -> Record:
    """Read a record.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return check_types(Record(**json.loads(path.read_bytes())))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it to run the row again") from error


def find(folder: Path, config: Config) -> Record | None:
    """A record in ``folder``, of any table, with these options and this seed; ``None`` if there is none."""
    expected = options(config)
    for path in sorted(folder.glob(f"*/*/seed-{config.run.seed}.json")):
        if not differences(expected, (record := read(path)).config):
            return record
    return None


def read_records(folder: Path, table: str) -> list[Record]:
    """Every record of a table in ``folder``, by row and seed."""
    return [read(path) for path in sorted((folder / table).glob("*/seed-*.json"))]
