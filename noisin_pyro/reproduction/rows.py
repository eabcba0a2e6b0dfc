"""Running a table's rows: what is missing, in their order, until it is done or the time is up."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from tqdm import tqdm

from noisin_pyro._files import exclusive_lock
from noisin_pyro.recipes import FIRST_SEED, SEARCH_SEED, Candidates, Recipe
from noisin_pyro.reproduction import records, report
from noisin_pyro.training import Config, Result, StopTraining, search, train
from noisin_pyro.training.build import load_corpus, resolved
from noisin_pyro.training.found import NoneSucceeded, Trial, settings_in
from noisin_pyro.training.rundir.layout import CONFIG, read_config, remove_partial_files
from noisin_pyro.training.space import Values, combinations, plain
from noisin_pyro.training.space import chosen as replaced

SEARCH, BEYOND = "search", "beyond"  # folders of a row's candidates, in the row's; BEYOND-1 and so on: one trial each


@dataclass(frozen=True)
class How:
    """What is done differently from the recipes, and for how long.

    Attributes:
        seeds: runs of each row; ``None``: the recipe's.
        trials: candidates that are tried of each row that has any, and none beyond them; ``None``: the recipe's.
        trial_epochs: epochs that each is tried for; ``None``: the recipe's.
        minutes: time limit by the clock; a run under way is kept, to be resumed.
        changes: options other than the recipes', by dotted name.
    """

    seeds: int | None = None
    trials: int | None = None
    trial_epochs: int | None = None
    minutes: float | None = None
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def reproduce(recipes: Sequence[Recipe], folder: Path, how: How) -> bool:
    """Run what is missing of these rows in ``folder``, and write their table after each.

    What a row leaves open is chosen on validation first, by trials that never read the test set. Then the row is
    trained anew with seeds of its own, and tested once for each: every row with its first seed, then every row with its
    second, and so on. A finished row that is asked for more epochs is continued. Rows that another process runs are
    left to it. A row whose loss is not finite, or that of all its candidates, is reported on stderr and has no record.

    Returns:
        whether everything is done.

    Raises:
        ValueError: options that the recipes refuse, data that are no text, or records of other options in ``folder``.
    """
    clock = Clock(how.minutes)
    changed = [dataclasses.replace(recipe, config=replaced(recipe.config, how.changes)) for recipe in recipes]
    most = max((how.seeds or recipe.seeds for recipe in changed), default=0)
    every = [
        (FIRST_SEED + run, recipe) for run in range(most) for recipe in changed if run < (how.seeds or recipe.seeds)
    ]
    if recipes and load_corpus(every[0][1].config.data).vocabulary is None:
        raise ValueError(f"data must be a text: the tables are of perplexities, got {every[0][1].config.data.name!r}")
    for seed, recipe in every:
        _require_same(records.path_of(folder, recipe, seed), recipe, how)
    done = True
    for seed, recipe in every:
        path = records.path_of(folder, recipe, seed)
        if path.exists() and not _is_to_lengthen(path, recipe):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            try:
                held.enter_context(exclusive_lock(path.parent))
            except ValueError:
                tqdm.write(f"{recipe.table}, {recipe.row}: under way in another process", file=sys.stderr)
                done = False
                continue
            if path.exists() and not _is_to_lengthen(path, recipe):  # by a process that had it until now
                continue
            told = f"{recipe.table}, {recipe.row}, seed {seed}"
            try:
                clock.check()
                tqdm.write(told, file=sys.stderr)
                records.write(path, _run(recipe, path.parent, seed, how, clock))
            except StopTraining:
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
            StopTraining: the time is up.
        """
        if self.end is not None and monotonic() >= self.end:
            raise StopTraining


def _is_to_lengthen(path: Path, recipe: Recipe) -> bool:
    return records.read(path).config["optimisation"]["epochs"] < recipe.config.optimisation.epochs


def _require_same(path: Path, recipe: Recipe, how: How) -> None:
    """Refuse a record that other options or candidates made; what was chosen on validation may differ, and the number
    of epochs may be larger now."""
    if not path.exists():
        return
    found = records.read(path)
    expected = records.options(replaced(recipe.config, found.chosen))
    if _is_to_lengthen(path, recipe):
        expected["optimisation"]["epochs"] = found.config["optimisation"]["epochs"]
    differs = _differences(expected, found.config)
    tried = settings_in(path.parent / SEARCH) if recipe.space else None
    if tried is not None:
        wanted = {
            "space": plain(recipe.space),
            "trials": _trials(recipe, how),
            "trial_epochs": how.trial_epochs or recipe.trial_epochs,
        }
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
    done = next(iter(sorted(where.glob("seed-*.json"))), None)
    values: Mapping[str, Any] = {}
    if recipe.space:
        values = _chosen(recipe, where, how, clock) if done is None else records.read(done).chosen
    config = replaced(recipe.config, {**values, "run.seed": seed})
    if (equal := records.read_equal(where.parents[1], config)) is not None:
        return records.of_recipe(equal, recipe, values)
    return records.record(recipe, config, values, _trained(config, where / f"seed-{seed}", clock))


def _chosen(recipe: Recipe, where: Path, how: How, clock: Clock) -> Values:
    """The values that are best in validation, among the recipe's candidates and those beyond.

    Raises:
        NoneSucceeded: all have diverged.
    """
    epochs = how.trial_epochs or recipe.trial_epochs
    config = replaced(
        recipe.config, {"run.seed": SEARCH_SEED, "optimisation.patience": None, "optimisation.epochs": epochs}
    )

    def tried(space: Candidates, folder: Path, trials: int) -> list[Trial]:
        try:
            return search(
                config, space, folder, trials, epochs, prune=False, finish=False, after_epoch=clock.check
            ).trials
        except NoneSucceeded as error:
            if folder.name == SEARCH:
                raise
            tqdm.write(f"{folder}: {error}", file=sys.stderr)
            return [Trial(0, {name: value for name, (value, *_) in space.items()}, "failed", 0, None, 0.0, str(error))]

    trials = tried(recipe.space, where / SEARCH, _trials(recipe, how))
    for number in range(1, 1 + (0 if how.trials else recipe.further_trials)):
        if (values := beyond(trials, recipe.ladder)) is None:
            break
        trials += tried({name: (value,) for name, value in values.items()}, where / f"{BEYOND}-{number}", 1)
    return best(trials).values


def best(trials: Sequence[Trial]) -> Trial:
    """The trial that is best in validation, the first of equal ones; at least one has succeeded."""
    return min((trial for trial in trials if trial.state == "complete"), key=lambda trial: trial.valid_nats or math.inf)


def beyond(trials: Sequence[Trial], ladder: Candidates) -> Values | None:
    """The best trial's values with one of them replaced by the next beyond all that were tried; ``None`` where no value
    of the best is the smallest or the largest of these, or the ladder ends there."""
    values = best(trials).values
    for name, steps in ladder.items():
        places = sorted({steps.index(trial.values[name]) for trial in trials})
        place = steps.index(values[name])
        following = {places[0]: place - 1, places[-1]: place + 1}.get(place)
        if following is not None and 0 <= following < len(steps):
            return {**values, name: steps[following]}
    return None


def _trained(config: Config, where: Path, clock: Clock) -> Result:
    """Train in that folder, or resume there, with more epochs if so many are asked for now.

    Raises:
        ValueError: it was begun with other options.
    """
    if not (where / CONFIG).exists():
        remove_partial_files(where)  # of a run killed while it wrote its configuration
        return train(replaced(config, {"run.folder": where}), after_epoch=clock.check)
    there, epochs = read_config(where), config.optimisation.epochs
    if epochs > there.optimisation.epochs:
        config = replaced(config, {"optimisation.epochs": there.optimisation.epochs})
    expected = records.options(dataclasses.replace(config, data=resolved(config.data)))
    _refuse(where, _differences(expected, records.options(there)))
    return train(replaced(config, {"run.resume": where}), after_epoch=clock.check, epochs=epochs)
