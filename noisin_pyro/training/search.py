"""A search for the best configuration in validation: many short runs, of which the best is trained to its end."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shlex
from pathlib import Path
from typing import Any

import torch

from noisin_pyro._files import exclusive_lock
from noisin_pyro.training import signals, study
from noisin_pyro.training.build import load_corpus, resolved
from noisin_pyro.training.config import Config, to_json
from noisin_pyro.training.distributed import set_device
from noisin_pyro.training.found import Found, settings_in
from noisin_pyro.training.loop import AfterEpoch
from noisin_pyro.training.provenance import provenance
from noisin_pyro.training.result import Measure
from noisin_pyro.training.rundir.layout import fingerprint, make_folder, remove_partial_files, require_empty
from noisin_pyro.training.space import Space, combinations, plain, require
from noisin_pyro.training.worker import Worker


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
) -> Found:
    """Train ``trials`` runs of ``config``, each with other values from ``space``, and the best of them to its end.

    A trial is a run in ``trial-0``, ``trial-1`` and so on in ``folder``, without its twin, which is left after
    ``trial_epochs`` epochs; its schedule and patience are those of ``config``, so that going on is the same run. The
    best has the lowest validation so far. Combinations that are refused, or diverge, are trials that have failed.
    ``search.json`` tells of every trial, and is written after each.

    Called again with the same arguments, after whatever ended it, a search goes on and ends in the same values and
    numbers; with more ``trials`` it does so many. Several processes or machines that see the same folder share the
    trials when each makes the call, at any time; the last to be done trains the best one to its end.

    Args:
        config: what is held fixed; its folder and twin are left aside.
        space: what is searched, by dotted names of fields:
            ``{"noise.family": ("gaussian", "gamma"), "noise.spread": Range(0.1, 1.0, log=True)}``. Choices of which
            there are no more combinations than ``trials`` are all tried, once each; else values are proposed by
            Optuna's TPE sampler, no combination of choices twice.
        folder: new or empty, or that of the search to go on with; ``None`` is ``runs/DATA-sweep-1`` and so on.
        trials: how many.
        trial_epochs: most epochs of a trial.
        prune: stop trials whose validation is worse than the median of others at the same epoch, but for the first
            half of their epochs and the first three trials.
        storage: address of a database for Optuna; by default its journal in ``folder``.
        seed: of the proposals; that of the runs is ``config.run.seed``.
        finish: train the best to its end.
        after_epoch: as for ``train``, after each epoch of each trial and of the best one, and before each trial.

    Raises:
        Paused: ``after_epoch`` has; the same call goes on.
        ValueError: a space, number or folder that cannot be, another search's folder, Optuna is not installed, no trial
            succeeded, or what ``train`` refuses.
    """
    for option, value, least in (("trials", trials, 1), ("trial epochs", trial_epochs, 1), ("seed", seed, 0)):
        if not value >= least:
            raise ValueError(f"{option} must be at least {least}, got {value}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("a search is not for torchrun: start it several times instead, the workers share its trials")
    require(space, config)
    with study.quiet() as optuna, signals.raise_on_sigterm():
        set_device(config.run.device)
        corpus = load_corpus(config.data)
        config = dataclasses.replace(
            config,
            data=resolved(config.data),
            run=dataclasses.replace(config.run, folder=None, resume=None, twin=False),
        )
        told = {
            "space": plain(space),
            "trial_epochs": trial_epochs,
            "prune": prune,
            "seed": seed,
            "storage": None if storage is None else study.without_password(storage),
            "config": _held(config, space),
            **fingerprint(corpus),
        }
        made = folder is None or not folder.exists()
        where = make_folder(folder, f"{corpus.name}-sweep")
        with contextlib.ExitStack() as refused, exclusive_lock(where, wait=True):
            if made:
                refused.callback(_remove_empty, where)
            every = combinations(space)
            growing = {"trials": trials, "sampler": "grid" if every is not None and len(every) <= trials else "TPE"}
            settings = _settings(where, growing, told) | provenance(torch.device(config.run.device))
            settings["versions"]["optuna"] = optuna.__version__
            measure: Measure = "nats" if corpus.vocabulary is None else "perplexity"
            warm_up = max(1, math.ceil(trial_epochs / 2)) if prune else None
            kept = study.opened(optuna, storage, where, settings["study"], warm_up)
            worker = Worker(
                optuna, kept, config, space, where, trials, trial_epochs, seed, settings, measure, after_epoch
            )
            worker.found().write(settings)
            refused.pop_all()
        try:
            return worker.done(finish)
        except BaseException as error:
            if not isinstance(error, ValueError | FloatingPointError):  # in place of what the trial says of itself
                error.__notes__ = [f"go on with: noisin sweep --resume {shlex.quote(str(where))}"]
            raise


def _held(config: Config, space: Space) -> dict[str, Any]:
    """The options that hold for every trial; what the fields that are searched had before says nothing."""
    groups = json.loads(to_json(config))
    for name in space:
        group, _, field = name.partition(".")
        del groups[group][field]
    return groups


def _settings(where: Path, growing: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    """What ``search.json`` says of the search as a whole, if that agrees with what it said before."""
    told = json.loads(json.dumps(told))  # as it will be read again
    before = settings_in(where)
    if before is None:
        remove_partial_files(where)  # of a search killed before its first trial
        (where / study.JOURNAL).unlink(missing_ok=True)
        require_empty(where)
        return {"study": f"{where.name}-{os.urandom(4).hex()}"} | growing | told
    changed = _differences(told, before)
    if growing["trials"] < before["trials"]:
        changed.append(f"trials {growing['trials']} (there: {before['trials']}, which can only grow)")
    if changed:
        raise ValueError(
            f"folder {str(where)!r} is of another search, got {', '.join(changed)}; leave them as they were, or choose "
            "another folder"
        )
    return before | growing


def _remove_empty(where: Path) -> None:
    with contextlib.suppress(OSError):  # something is there: another worker was quicker
        where.rmdir()


def _differences(now: dict[str, Any], before: dict[str, Any], name: str = "") -> list[str]:
    found = []
    for key in dict.fromkeys([*now, *(before if name else ())]):
        told, new, old = f"{name} {key}".strip(), now.get(key), before.get(key)
        if isinstance(new, dict) and isinstance(old, dict):
            found += _differences(new, old, told)
        elif new != old and told not in ("config data name", "config data root", "config data files"):
            found.append(f"{told.removeprefix('config ').replace('_', ' ')} {new} (there: {old})")
    return found  # where the data are may differ between machines: the fingerprint tells whether they are the same
