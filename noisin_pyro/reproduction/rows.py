"""Running a table's rows: those that are missing, in order, until all are done or the time is up."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from noisin_pyro._files import exclusive_lock
from noisin_pyro.recurrence.matmul import check_matmul_precision
from noisin_pyro.reproduction import records, report
from noisin_pyro.reproduction.recipe import TRIAL_SEED, Candidates, Recipe
from noisin_pyro.search import search
from noisin_pyro.search.result import NoTrialSucceeded, Trial, best_trial, read_settings
from noisin_pyro.search.search_space import Values, combinations, to_json
from noisin_pyro.training import Config, Result, StopTraining, train
from noisin_pyro.training.build import load_corpus, resolved
from noisin_pyro.training.config import label, with_values
from noisin_pyro.training.loop import AfterEpoch
from noisin_pyro.training.rundir.layout import CONFIG, read_config, remove_partial_files

logger = logging.getLogger("noisin_pyro")

SEARCH, BEYOND = "search", "beyond"
"""In a row's folder, those of its search, and of the single trials beyond: ``beyond-1`` and so on."""


@dataclass(frozen=True)
class ReproductionOptions:
    """Changes to the recipes, and a time limit.

    Attributes:
        seeds: number of runs of each row; ``None`` is the recipe's.
        trials: number of candidates that are tried of each row that has any, with none beyond; ``None`` is the
            recipe's.
        trial_epochs: number of epochs of each trial; ``None`` is the recipe's.
        minutes: time limit in minutes; the next call resumes an unfinished run.
        changes: values of other options, by dotted names.
    """

    seeds: int | None = None
    trials: int | None = None
    trial_epochs: int | None = None
    minutes: float | None = None
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def trials_of(self, recipe: Recipe) -> int:
        """Number of trials of a row's search: by default all combinations of its candidates."""
        return self.trials or len(combinations(recipe.trial_space) or [])

    def trial_epochs_of(self, recipe: Recipe) -> int:
        """Number of epochs of each trial of a row."""
        return self.trial_epochs or recipe.trial_epochs


def time_limit(minutes: float | None) -> AfterEpoch:
    """A callback that raises ``StopTraining`` when the time is up."""
    end = math.inf if minutes is None else monotonic() + 60 * minutes

    def check(rows: object) -> None:
        if monotonic() >= end:
            raise StopTraining

    return check


def reproduce(recipes: Sequence[Recipe], folder: Path, options: ReproductionOptions) -> bool:
    """Run what is missing of these rows in ``folder``, and write their table after each.

    The candidates of a row are first compared on validation, by trials that never read the test set. Then the row is
    trained again with seeds of its own, and tested once for each: every row with its first seed, then every row with
    its second, and so on. A finished row with fewer epochs than requested is continued. Rows that another process runs
    are skipped. A row whose loss is not finite, or whose candidates all diverge, is logged and has no record.

    Returns:
        Whether everything is done.

    Raises:
        ValueError: options that the recipes refuse, a precision that the machine lacks, data other than a text, or
            records of other options in ``folder``.
    """
    limit = time_limit(options.minutes)
    changed = [dataclasses.replace(recipe, config=with_values(recipe.config, options.changes)) for recipe in recipes]
    number = max((options.seeds or recipe.seeds for recipe in changed), default=0)
    runs = [
        (records.path_of(folder, recipe, recipe.first_seed + run), recipe, recipe.first_seed + run)
        for run in range(number)
        for recipe in changed
        if run < (options.seeds or recipe.seeds)
    ]
    if runs and load_corpus(data := runs[0][1].config.data).vocabulary is None:
        raise ValueError(f"data must be a text: the tables are of perplexities, got {data.name!r}")
    for path, recipe, _ in runs:
        _require_same_options(path, recipe, options)
        if not _is_complete(path, recipe):
            check_matmul_precision(recipe.config.model.matmul_precision)
    done = True
    try:
        for path, recipe, seed in runs:
            done &= _run_if_missing(path, recipe, seed, options, limit)
    except StopTraining:
        done = False
    for table in dict.fromkeys(recipe.table for recipe in recipes):
        report.write(folder, table)
    return done


def _run_if_missing(path: Path, recipe: Recipe, seed: int, options: ReproductionOptions, limit: AfterEpoch) -> bool:
    """Run a row with one seed unless its record is there; returns whether it is then."""
    if _is_complete(path, recipe):
        return True
    name = f"{recipe.table}, {recipe.row}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as lock:
        try:
            lock.enter_context(exclusive_lock(path.parent))
        except ValueError:
            logger.warning("%s: another process runs it", name)
            return False
        if _is_complete(path, recipe):  # another process may just have released the lock
            return True
        try:
            limit([])
            logger.info("%s, seed %d", name, seed)
            records.write(path, _run(recipe, path.parent, seed, options, limit))
        except (FloatingPointError, NoTrialSucceeded) as error:
            logger.warning("%s, seed %d: %s; no record is written", name, seed, error)
            return False
        except BaseException as error:
            if not isinstance(error, ValueError):
                error.__notes__ = ["the same command resumes"]  # replaces the note on resuming a single run
            raise
    report.write(path.parents[2], recipe.table)
    return True


def _is_complete(path: Path, recipe: Recipe) -> bool:
    """Whether there is a record with at least the requested number of epochs."""
    return path.exists() and _epochs(records.read(path)) >= recipe.config.optimization.epochs


def _epochs(record: records.Record) -> int:
    return record.config["optimization"]["epochs"]


def _require_same_options(path: Path, recipe: Recipe, options: ReproductionOptions) -> None:
    """Refuse a record of other options or candidates.

    The values that were chosen on validation may differ from the recipe's, and the record may have fewer epochs.
    """
    if not path.exists():
        return
    record = records.read(path)
    expected = records.options(with_values(recipe.config, record.chosen))
    if not _is_complete(path, recipe) or "optimization.epochs" not in options.changes:
        expected["optimization"]["epochs"] = _epochs(record)  # to be lengthened, or longer than the recipe's
    differences = _differences(expected, record.config)
    settings = read_settings(path.parent / SEARCH) if recipe.space else None
    if settings is not None:
        of_search = {
            "space": to_json(recipe.trial_space),
            "trials": options.trials_of(recipe),
            "trial_epochs": options.trial_epochs_of(recipe),
        }
        differences += [
            f"{label(name)} {value} (there: {settings[name]})"
            for name, value in of_search.items()
            if settings[name] != value
        ]
    _refuse(path, differences)


def _refuse(where: Path, differences: Sequence[str]) -> None:
    if differences:
        raise ValueError(
            f"{where} was made with other options: {', '.join(differences)}; give the same ones, or another folder"
        )


def _differences(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    differences = records.differences(expected, actual)
    return [f"{label(name)} {new!r} (there: {old!r})" for name, (new, old) in differences.items()]


def _run(recipe: Recipe, where: Path, seed: int, options: ReproductionOptions, limit: AfterEpoch) -> records.Record:
    first = next(iter(sorted(where.glob("seed-*.json"))), None)
    chosen: Mapping[str, Any] = {}
    if recipe.space:
        chosen = choose(recipe, where, options, limit) if first is None else records.read(first).chosen
    config = with_values(recipe.config, {**chosen, "run.seed": seed})
    if (same_run := records.find(where.parents[1], config)) is not None:
        return records.with_recipe(same_run, recipe, chosen)
    return records.record(recipe, config, chosen, train_in(config, where / f"seed-{seed}", limit))


def choose(recipe: Recipe, where: Path, options: ReproductionOptions, limit: AfterEpoch) -> Values:
    """The values that are best in validation, among the recipe's candidates and those beyond.

    Raises:
        NoTrialSucceeded: all candidates diverge.
    """
    epochs = options.trial_epochs_of(recipe)
    config = with_values(
        recipe.config,
        {
            "run.seed": recipe.trial_seeds[0],
            "optimization.patience": recipe.trial_patience,
            "optimization.epochs": epochs,
        },
    )

    def run_trials(space: Candidates, folder: Path, number: int) -> list[Trial]:
        result = search(config, space, folder, number, epochs, prune=False, finish=False, after_epoch=limit)
        return mean_over_seeds(result.trials)

    trials = run_trials(recipe.trial_space, where / SEARCH, options.trials_of(recipe))
    for number in range(1, 1 + (0 if options.trials else recipe.further_trials)):
        if (values := next_on_ladder(trials, recipe.ladder)) is None:
            break
        trials += run_trials({name: (value,) for name, value in values.items()}, where / f"{BEYOND}-{number}", 1)
    return best_trial(trials).values


def mean_over_seeds(trials: Sequence[Trial]) -> list[Trial]:
    """One trial for each candidate, with its mean validation loss over seeds; failed if any of its seeds failed."""
    by_values: dict[str, list[Trial]] = {}
    for trial in trials:
        values = {name: value for name, value in trial.values.items() if name != TRIAL_SEED}
        by_values.setdefault(repr(values), []).append(dataclasses.replace(trial, values=values))
    means = []
    for same in by_values.values():
        losses = [trial.valid_nats for trial in same if trial.valid_nats is not None]
        first = next((trial for trial in same if trial.state != "complete"), same[0])
        means.append(dataclasses.replace(first, valid_nats=sum(losses) / len(losses) if losses else None))
    return means


def next_on_ladder(trials: Sequence[Trial], ladder: Candidates) -> Values | None:
    """The best trial's values, with the first one that is at an edge of what was tried moved a step beyond it.

    Returns:
        ``None`` if no value of the best trial is the smallest or the largest that was tried, or the ladder ends there.

    Raises:
        NoTrialSucceeded: there is no best trial.
    """
    values = best_trial(trials).values
    for name, steps in ladder.items():
        places = sorted({steps.index(trial.values[name]) for trial in trials})
        place = steps.index(values[name])
        following = {places[0]: place - 1, places[-1]: place + 1}.get(place)
        if following is not None and 0 <= following < len(steps):
            return {**values, name: steps[following]}
    return None


def train_in(config: Config, where: Path, limit: AfterEpoch) -> Result:
    """Train in that folder, or resume there, with more epochs if requested.

    Raises:
        ValueError: the run there has other options.
    """
    if not (where / CONFIG).exists():
        remove_partial_files(where)  # of a run that was killed while writing its configuration
        return train(with_values(config, {"run.folder": where}), after_epoch=limit)
    there, epochs = read_config(where), config.optimization.epochs
    if epochs > there.optimization.epochs:
        config = with_values(config, {"optimization.epochs": there.optimization.epochs})
    expected = records.options(dataclasses.replace(config, data=resolved(config.data)))
    _refuse(where, _differences(expected, records.options(there)))
    return train(with_values(config, {"run.resume": where}), after_epoch=limit, epochs=epochs)
