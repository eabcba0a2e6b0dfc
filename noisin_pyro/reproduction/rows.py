"""Running a table's rows: what is missing, in their order, until it is done or the time is up."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from tqdm import tqdm

from noisin_pyro.recipes import Recipe
from noisin_pyro.reproduction import records, report
from noisin_pyro.training import Config, Paused, Result, search, train
from noisin_pyro.training.build import load_corpus, located
from noisin_pyro.training.folder import CONFIG, read_config, sweep
from noisin_pyro.training.found import NoneSucceeded, settings_in
from noisin_pyro.training.locks import alone
from noisin_pyro.training.space import chosen as replaced
from noisin_pyro.training.space import combinations, plain

SEARCH = "search"  # the folder of a row's candidates, in the row's


@dataclass(frozen=True)
class How:
    """What is done differently from the recipes, and for how long.

    Attributes:
        seeds: runs of each row, seeds 0, 1 and so on; what is chosen on validation is chosen with seed 0.
        trials: candidates that are tried of each row that has any; ``None``: all.
        trial_epochs: epochs that each is tried for; the best goes on.
        minutes: time limit by the clock; what is under way is kept, to go on with.
        changes: options other than the recipes', by dotted name.
    """

    seeds: int = 1
    trials: int | None = None
    trial_epochs: int = 4
    minutes: float | None = None
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def reproduce(recipes: Sequence[Recipe], folder: Path, how: How) -> bool:
    """Run what is missing of these rows in ``folder``, and write their table after each.

    Every row with seed 0 comes first, then every row with seed 1, and so on. Rows that another process has under way
    are left to it; one whose loss is not finite, or that of all its candidates, is told on stderr, and has no record.

    Returns:
        whether everything is done.

    Raises:
        ValueError: options that the recipes refuse, data that are no text, or records of other options in ``folder``.
    """
    clock = Clock(how.minutes)
    changed = [dataclasses.replace(recipe, config=replaced(recipe.config, how.changes)) for recipe in recipes]
    every = [(seed, recipe) for seed in range(how.seeds) for recipe in changed]
    if recipes and load_corpus(every[0][1].config.data).vocabulary is None:
        raise ValueError(f"data must be a text: the tables are of perplexities, got {every[0][1].config.data.name!r}")
    for seed, recipe in every:
        _require_same(records.path_of(folder, recipe, seed), recipe, how)
    done = True
    for seed, recipe in every:
        path = records.path_of(folder, recipe, seed)
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            try:
                held.enter_context(alone(path.parent))
            except ValueError:
                tqdm.write(f"{recipe.table}, {recipe.row}: under way in another process", file=sys.stderr)
                done = False
                continue
            if path.exists():  # by a process that had it until now
                continue
            told = f"{recipe.table}, {recipe.row}, seed {seed}"
            try:
                clock.check()
                tqdm.write(told, file=sys.stderr)
                records.write(path, _run(recipe, path.parent, seed, how, clock))
            except Paused:
                done = False
                break
            except (FloatingPointError, NoneSucceeded) as error:
                tqdm.write(f"{told}: {error}; without a record", file=sys.stderr)
                done = False
            except BaseException as error:
                if not isinstance(error, ValueError):
                    error.__notes__ = ["the same command goes on"]  # in place of what a single run says
                raise
        report.write(folder, recipe.table)
    for name in dict.fromkeys(recipe.table for recipe in recipes):
        report.write(folder, name)
    return done


class Clock:
    """Leaves a run after the epoch in which the time is up."""

    def __init__(self, minutes: float | None) -> None:
        self.end = None if minutes is None else monotonic() + 60 * minutes

    def check(self, rows: object = None) -> None:
        """Called after each epoch.

        Raises:
            Paused: the time is up.
        """
        if self.end is not None and monotonic() >= self.end:
            raise Paused


def _require_same(path: Path, recipe: Recipe, how: How) -> None:
    """Refuse a record that other options or candidates made; what was chosen on validation may differ."""
    if not path.exists():
        return
    found = records.read(path)
    differs = _differences(records.options(replaced(recipe.config, found.chosen)), found.config)
    tried = settings_in(path.parent / SEARCH) if recipe.space else None
    if tried is not None:
        wanted = {"space": plain(recipe.space), "trials": _trials(recipe, how), "trial_epochs": how.trial_epochs}
        differs += [
            f"{name.replace('_', ' ')} {new} (there: {tried[name]})"
            for name, new in wanted.items()
            if tried[name] != new
        ]
    _refuse(path, differs)


def _refuse(where: Path, differs: Sequence[str]) -> None:
    if differs:
        raise ValueError(
            f"{where} was made with other options: {', '.join(differs)}; give the same ones, or another folder"
        )


def _differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    differing = records.differing(expected, found)
    return [f"{name.partition('.')[2]} {value!r} (there: {before!r})" for name, (value, before) in differing.items()]


def _trials(recipe: Recipe, how: How) -> int:
    return how.trials or len(combinations(recipe.space) or [])


def _run(recipe: Recipe, where: Path, seed: int, how: How, clock: Clock) -> records.Record:
    config, chosen, first = recipe.config, dict[str, Any](), where / "seed-0.json"
    if recipe.space and first.exists():
        chosen = records.read(first).chosen
    elif recipe.space:
        found = search(
            config,
            recipe.space,
            where / SEARCH,
            trials=_trials(recipe, how),
            trial_epochs=how.trial_epochs,
            prune=False,
            finish=seed == 0,
            after_epoch=clock.check,
        )
        assert found.best is not None
        chosen = found.best.values
        if seed == 0:
            assert found.result is not None
            return records.record(recipe, replaced(config, chosen), chosen, found.result)
    config = replaced(config, {**chosen, "run.seed": seed})
    return records.record(recipe, config, chosen, _trained(config, where / f"seed-{seed}", clock))


def _trained(config: Config, where: Path, clock: Clock) -> Result:
    """Train in that folder, or go on there if it was with these options.

    Raises:
        ValueError: it was with others.
    """
    if (where / CONFIG).exists():
        expected = records.options(dataclasses.replace(config, data=located(config.data)))
        _refuse(where, _differences(expected, records.options(read_config(where))))
        how = {"run.resume": where}
    else:
        sweep(where)  # of a run killed while it wrote its configuration
        how = {"run.folder": where}
    return train(replaced(config, how), after_epoch=clock.check)
