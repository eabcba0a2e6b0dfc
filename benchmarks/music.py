"""All contestants on a set of polyphonic music: ``python benchmarks/music.py jsb``.

``docs/music.md`` has the protocol, and ``music_recipes.py`` the contestants. Each is tuned in validation by eight
trials, trained with seeds of its own, and tested once for each seed by every method that it supports. Rows that start
from another have its trials and training before their own. The same command resumes after an interruption. Several
processes share the rows. It runs on one thread.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dmm
import pyro
import torch
import tyro
from music_recipes import BUDGETS, DMM, recipes, start_of
from music_table import write_table

import noisin_pyro as nz
from noisin_pyro._files import exclusive_lock, write_json
from noisin_pyro._lookup import known
from noisin_pyro.data import Sequences
from noisin_pyro.reproduction import Recipe, ReproductionOptions
from noisin_pyro.reproduction.rows import BEYOND, SEARCH, choose, time_limit, train_in
from noisin_pyro.search.result import NoTrialSucceeded
from noisin_pyro.training import StopTraining
from noisin_pyro.training.config import with_values
from noisin_pyro.training.loop import AfterEpoch
from noisin_pyro.training.result import evaluation_as_dict
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.rundir import metrics_log
from noisin_pyro.training.rundir.layout import LOG, RESULT, read_settings

logger = logging.getLogger("noisin_pyro")

DRAWS, RUNS, SAMPLES, PARTICLES = 20, 100, 1000, 2000
"""Draws of the ELBO, runs of the ensemble, importance samples per sequence, and particles in four islands."""
BATCH = 20  # sequences per batch of the test
PROPOSAL = "guided-particle-filter"
BOUNDS = ("elbo", "importance")  # what the Deep Markov Model supports


def run_row(
    recipe: Recipe, folder: Path, seed: int, options: ReproductionOptions, limit: AfterEpoch, scale: float = 1.0
) -> bool:
    """Run a row with one seed unless its record is there; returns whether it is then."""
    where = folder / recipe.row
    path, name = where / f"seed-{seed}.json", f"{recipe.table}, {recipe.row}, seed {seed}"
    where.mkdir(parents=True, exist_ok=True)
    with ExitStack() as lock:
        try:
            lock.enter_context(exclusive_lock(where))
        except ValueError:
            logger.warning("%s: another process runs it", name)
            return path.exists()
        if path.exists():
            return True
        if (start := start_of(recipe.row)) is not None and not (folder / start / path.name).exists():
            logger.warning("%s: it starts from %s, which is not complete", name, start)
            return False
        limit([])
        logger.info("%s", name)
        try:
            write_json(path, _record(recipe, folder, seed, options, limit, scale))
        except (FloatingPointError, NoTrialSucceeded) as error:
            logger.warning("%s: %s; no record is written", name, error)
            return False
    return True


def _record(
    recipe: Recipe, folder: Path, seed: int, options: ReproductionOptions, limit: AfterEpoch, scale: float
) -> dict[str, Any]:
    """Train a row, or resume it, and test it."""
    where = folder / recipe.row
    run, chosen = where / f"seed-{seed}", {}
    if recipe.row == DMM:
        dmm.train(run, recipe.table, seed, dmm.Settings(epochs=options.changes.get("dmm.epochs", 5000)), limit)
    else:
        start = start_of(recipe.row)
        changes = {name: value for name, value in options.changes.items() if not name.startswith("dmm.")}
        changes |= {} if start is None else {"run.init_from": folder / start / run.name}
        recipe = dataclasses.replace(recipe, config=with_values(recipe.config, changes))
        first = next(iter(sorted(where.glob("seed-*.json"))), None)
        chosen = choose(recipe, where, options, limit) if first is None else json.loads(first.read_text())["chosen"]
        train_in(with_values(recipe.config, {**chosen, "run.seed": seed}), run, limit)
    begin = time.perf_counter()
    evaluations, parameters = score(recipe, run, seed, scale)
    result = json.loads((run / RESULT).read_text())
    return {
        "row": recipe.row,
        "method": recipe.method,
        "seed": seed,
        "chosen": dict(chosen),
        "parameters": parameters,
        "spreads": result["spreads"],
        "epochs": result["epochs"],
        "best_epoch": result["best_epoch"],
        "seconds": {
            "trials": sum(_trial_seconds(where)),
            "training": sum(row["seconds"] for row in metrics_log.read(run / LOG)),
            "test": time.perf_counter() - begin,
        },
        "scale": scale,
        "commit": read_settings(run)["commit"],
        "evaluations": {method: evaluation_as_dict(evaluation) for method, evaluation in evaluations.items()},
    }


def _trial_seconds(where: Path) -> Iterator[float]:
    """Seconds of each trial of a row."""
    for path in [*where.glob(f"{SEARCH}/search.json"), *where.glob(f"{BEYOND}-*/search.json")]:
        yield from (trial["seconds"] for trial in json.loads(path.read_text())["of_each_trial"])


def score(recipe: Recipe, run: Path, seed: int, scale: float = 1.0) -> tuple[dict[str, nz.Evaluation], dict[str, int]]:
    """Evaluate the best model of a run on the test set by every method that it supports, and count its parameters.

    Args:
        recipe: the row.
        run: the folder of its run.
        seed: random seed of each evaluation.
        scale: factor on the numbers of samples.
    """
    draws, runs, samples, particles = (4 * max(1, int(scale * n / 4)) for n in (DRAWS, RUNS, SAMPLES, PARTICLES))
    with program_settings():
        test = nz.data.load(recipe.table).test
        assert isinstance(test, Sequences)
        if recipe.row == DMM:
            network = dmm.best(run, test.targets.shape[-1])
            model, guide, parameters = network.model, network.guide, {"all": count(network)}
        else:
            trained = nz.load(run)
            model, guide, parameters = trained.model, trained.guide, {"model": count(trained.model)}
            parameters |= {} if guide is None else {"guide": count(guide)}
        by_filter = {"method": "particle-filter", "num_samples": particles, "batch_size": BATCH}
        methods: dict[str, Callable[[], nz.Evaluation]] = {
            "mean": lambda: nz.evaluate(model, test, method="mean"),
            "ensemble": lambda: nz.evaluate(model, test, method="ensemble", num_samples=runs),
            "elbo": lambda: elbo(model, guide, test, draws),
            "importance": lambda: nz.evaluate(
                model, test, method="importance", guide=guide, num_samples=samples, batch_size=BATCH
            ),
            "particle-filter": lambda: nz.evaluate(model, test, **by_filter),
            PROPOSAL: lambda: nz.evaluate(model, test, guide=guide, **by_filter),
        }
        chosen = BOUNDS if recipe.row == DMM else [name for name in methods if guide is not None or name != PROPOSAL]
        evaluations = {}
        for method in chosen:
            pyro.set_rng_seed(seed)
            evaluations[method] = methods[method]()
            print(f"{recipe.row:>13}, {method}: {evaluations[method]}", file=sys.stderr)
    return evaluations, parameters


def count(module: torch.nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def elbo(model: Any, guide: Any, data: Sequences, draws: int) -> nz.Evaluation:
    """The mean of ``draws`` ELBOs with one sample per sequence each."""
    evaluations = [
        nz.evaluate(model, data, method="importance", guide=guide, num_samples=1, batch_size=BATCH)
        for _ in range(draws)
    ]
    nats = torch.tensor([each.nats_per_step for each in evaluations]).double()
    error = float(nats.std()) / draws**0.5 if evaluations[0].num_samples else 0.0
    return dataclasses.replace(
        evaluations[0],
        nats_per_step=float(nats.mean()),
        monte_carlo_error=error,
        standard_error=sum(each.standard_error for each in evaluations) / draws,
        num_samples=draws if evaluations[0].num_samples else 0,
    )


def main(
    data: tyro.conf.Positional[str] = "jsb",
    rows: tuple[str, ...] = (),
    seeds: int = 1,
    minutes: float | None = None,
    folder: Path = Path("results/music"),
    scale: float = 1.0,
    table: bool = False,
) -> None:
    """Run the rows that are missing, all with the first seed, then all with the second, and write the table.

    Args:
        data: jsb, nottingham, piano-midi or musedata.
        rows: Names of rows; by default all.
        seeds: Number of runs of each row.
        minutes: Time limit; the same command resumes.
        folder: Folder for records, runs and tables, by the name of the data.
        scale: Factor on the numbers of samples in the tests.
        table: Write the table of the complete rows, and run nothing.
    """
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    contestants = recipes(known("data", data, BUDGETS))
    chosen = [contestants[known("rows", row, contestants)] for row in rows] or list(contestants.values())
    if table:
        print(write_table(folder / data, contestants))
        return
    limit, done = time_limit(minutes), True
    try:
        for run in range(seeds):
            for recipe in chosen:
                seed = recipe.first_seed + run
                done &= run_row(recipe, folder / data, seed, ReproductionOptions(), limit, scale)
                write_table(folder / data, contestants)
    except StopTraining:
        done = False
    print(write_table(folder / data, contestants))
    print("all rows are done" if done else "rows are left: the same command resumes")


if __name__ == "__main__":
    tyro.cli(main)
