"""A search for the configuration that is best in validation."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from noisin_pyro._files import exclusive_lock
from noisin_pyro.search.result import SearchResult, read_settings
from noisin_pyro.search.search_space import Space, combinations, to_json, validate
from noisin_pyro.training import config as configs
from noisin_pyro.training import signals
from noisin_pyro.training.build import load_corpus, resolved
from noisin_pyro.training.config import Config, flat, with_values
from noisin_pyro.training.distributed import is_distributed, set_device
from noisin_pyro.training.loop import AfterEpoch
from noisin_pyro.training.options import plain
from noisin_pyro.training.provenance import provenance
from noisin_pyro.training.rundir.layout import fingerprint, make_folder, remove_partial_files, require_empty

if TYPE_CHECKING:
    from noisin_pyro.search.trial_runner import TrialRunner

# The location of the data may differ between machines; the fingerprint identifies them.
_DATA_LOCATION = ("config.data.name", "config.data.root", "config.data.files")


def search(
    config: Config,
    space: Space,
    folder: Path | None,
    trials: int,
    trial_epochs: int,
    prune: bool = True,
    storage: str | None = None,
    seed: int = 0,
    finish: bool = True,
    after_epoch: AfterEpoch = lambda rows: None,
) -> SearchResult:
    """Train ``trials`` runs of ``config`` with values from ``space``, and continue the best of them to its end.

    A trial is a run in ``trial-0``, ``trial-1`` and so on in ``folder``, without a deterministic twin, which stops
    after ``trial_epochs`` epochs. Schedule and patience are those of ``config``, so the best trial continues to the
    same numbers as a run without a search. It is the one with the lowest validation loss. Values that are refused, and
    runs that diverge, are failed trials. ``search.json`` lists every trial.

    Called again with the same arguments, after any interruption, a search resumes and ends with the same values and
    numbers; with more ``trials`` it continues to that many. Processes, also on several machines that see the folder,
    share the trials if each makes the call, at any time; the last one to finish trains the best trial to its end.

    Args:
        config: the options that all trials share; its folder and twin are ignored.
        space: what is searched, by dotted names of fields:
            ``{"noise.noise": ("gaussian", "gamma"), "noise.spread": Range(0.1, 1.0, log=True)}``. If ``trials`` are
            enough for all combinations of choices, each is tried once. Otherwise Optuna's TPE sampler proposes values,
            and no combination of choices is tried twice.
        folder: new or empty, or that of the search to resume; ``None`` is ``runs/DATA-sweep-1`` and so on.
        trials: number of trials.
        trial_epochs: maximum number of epochs of a trial.
        prune: stop trials whose validation loss is worse than the median of others at the same epoch, except in the
            first half of their epochs and the first three trials.
        storage: URL of a database for Optuna; by default a journal in ``folder``.
        seed: seed of the proposals; that of the runs is ``config.run.seed``.
        finish: train the best trial to its end. Without it, a search in which all trials failed raises no error.
        after_epoch: as for ``train``, called after each epoch of each trial and of the best one, and before each trial.

    Raises:
        StopTraining: from ``after_epoch``; the same call resumes.
        ValueError: an invalid space, number or folder, the folder of another search, no Optuna, no trial that
            succeeded, or what ``train`` refuses.
    """
    trials, trial_epochs, seed = map(plain, (trials, trial_epochs, seed))
    space = {name: tuple(map(plain, values)) if isinstance(values, tuple) else values for name, values in space.items()}
    _require_at_least(1, trials=trials, trial_epochs=trial_epochs)
    _require_at_least(0, seed=seed)
    if is_distributed():
        raise ValueError("a search cannot run under torchrun; start it several times instead, to share its trials")
    validate(space, config)
    with _quiet_optuna(), signals.raise_on_sigterm():
        runner = _open(config, space, folder, trials, trial_epochs, prune, storage, seed, after_epoch)
        try:
            result = runner.run()
            return runner.finish(result) if finish else result
        except BaseException as error:
            if not isinstance(error, ValueError | FloatingPointError):  # replaces the note on resuming the trial alone
                error.__notes__ = [f"resume with: noisin sweep --resume {shlex.quote(str(runner.folder))}"]
            raise


def _open(
    config: Config,
    space: Space,
    folder: Path | None,
    trials: int,
    trial_epochs: int,
    prune: bool,
    storage: str | None,
    seed: int,
    after_epoch: AfterEpoch,
) -> TrialRunner:
    """Begin the search in its folder, or resume or share the one that is there. The arguments are those of ``search``.

    Raises:
        ValueError: the folder holds another search, or data or a storage that cannot be used.
    """
    from noisin_pyro.search import optuna_study
    from noisin_pyro.search.trial_runner import TrialRunner

    set_device(config.run.device)
    corpus = load_corpus(config.data, config.model.emission)
    config = with_values(
        dataclasses.replace(config, data=resolved(config.data)),
        {"run.folder": None, "run.resume": None, "run.twin": False},
    )
    database, public_url = (None, None) if storage is None else optuna_study.open_database(storage)
    fixed = {
        "space": to_json(space), "trial_epochs": trial_epochs, "prune": prune, "seed": seed, "storage": public_url,
        "config": _shared_options(config, space), **fingerprint(corpus),
    }  # fmt: skip
    where = make_folder(folder, f"{corpus.name}-sweep")
    measure = "nats" if corpus.vocabulary is None else "perplexity"
    with exclusive_lock(where, wait=True):
        settings = _settings(where, fixed, trials, space) | provenance(torch.device(config.run.device))
        settings["versions"]["optuna"] = version("optuna")
        if read_settings(where) is None:  # a folder without this file is then empty, even after a kill
            SearchResult(where, [], measure).write(settings)
        database = database or optuna_study.open_journal(where / optuna_study.JOURNAL)
        study = optuna_study.open_study(database, settings["study"], math.ceil(trial_epochs / 2) if prune else None)
        runner = TrialRunner(study, database, config, space, where, trials, trial_epochs, seed, measure, after_epoch)
        runner.result().require_recorded()
        runner.result().write(settings)
    return runner


def _require_at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if not value >= least:
            raise ValueError(f"{name.replace('_', ' ')} must be at least {least}, got {value}")


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """A context in which Optuna logs errors only, and does not warn about experimental features."""
    try:
        import optuna
    except ImportError as error:
        raise ValueError(
            f'a search needs Optuna ({error}); install it, in the checkout of noisin_pyro: pip install -e ".[sweep]"'
        ) from error
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _shared_options(config: Config, space: Space) -> dict[str, Any]:
    """The options of every trial, without those that are searched."""
    groups = json.loads(configs.to_json(config))
    for group, _, field in (name.partition(".") for name in space):
        del groups[group][field]
    return groups


def _settings(where: Path, fixed: dict[str, Any], trials: int, space: Space) -> dict[str, Any]:
    """The settings for ``search.json``, which are those of the search in the folder if there is one.

    Raises:
        ValueError: the folder holds another search, or something else.
    """
    grid = combinations(space)
    growing = {"trials": trials, "sampler": "grid" if grid is not None and len(grid) <= trials else "TPE"}
    before = read_settings(where)
    if before is None:
        remove_partial_files(where)  # of a search that was killed while writing this file
        require_empty(where)
        return {"study": f"{where.name}-{os.urandom(4).hex()}"} | growing | fixed
    new, old = flat(json.loads(json.dumps(fixed))), flat({key: before.get(key) for key in fixed})
    differences = [
        f"{name.removeprefix('config.').replace('_', ' ')} {new.get(name)} (there: {old.get(name)})"
        for name in new | old
        if new.get(name) != old.get(name) and name not in _DATA_LOCATION
    ]
    if trials < before["trials"]:
        differences.append(f"trials {trials} (there: {before['trials']}, which can only grow)")
    if differences:
        raise ValueError(
            f"folder {str(where)!r} has another search, got {', '.join(differences)}; keep its settings, or choose "
            "another folder"
        )
    return before | growing
