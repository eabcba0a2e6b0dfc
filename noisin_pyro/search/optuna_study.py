"""What Optuna does in a search: it stores the trials, proposes values, and says which trials to prune."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from noisin_pyro._files import atomic_write, naming
from noisin_pyro.search.search_space import Range, Space, Values, combinations, is_float

JOURNAL = "optuna.journal"
_MAX_REDRAWS = 20
_RECORD = '{"op_code":'
_CREATED_BY = {"study_id": 0, "trial_id": 4}  # codes of the records after which Optuna counts one more

logger = logging.getLogger("noisin_pyro")


def open_database(url: str) -> tuple[BaseStorage, str]:
    """Optuna's storage in a database, and its URL without the password.

    Raises:
        ValueError: no URL of a database, or one that cannot be opened.
    """
    from sqlalchemy.engine import make_url  # a dependency of Optuna

    public = url
    try:
        public = make_url(url).render_as_string(hide_password=True)
        return optuna.storages.get_storage(url), public
    except Exception as error:  # each database driver has its own
        message = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise ValueError(
            f"storage {public!r} cannot be opened ({message}); give a URL such as sqlite:///sweeps.db, or leave it out"
        ) from error


class _Journal(JournalFileBackend):
    """Optuna's file of records, a line each, whose errors name the file."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with naming(Path(self._file_path)):
            super().append_logs(logs)


def open_journal(path: Path) -> BaseStorage:
    """Optuna's storage in a file, which processes and machines can share. A damaged file is mended with a warning.

    Raises:
        ValueError: a file in which records are missing that later ones need.
    """
    # A lock of the operating system ends with its process; Optuna's own would hold up the next one for 30 seconds.
    lock: Any = FileLock(path.with_name(f".{path.name}.lock"))
    backend = _Journal(str(path), lock_obj=lock)
    with lock:
        _mend(path)
    try:
        return JournalStorage(backend)
    except (LookupError, TypeError, ValueError) as error:  # Optuna has no class of its own for this
        raise ValueError(
            f"{path} is damaged, {type(error).__name__}: {error}; restore it, or start the search in another folder"
        ) from error


def _mend(path: Path) -> None:
    """Leave the whole records of a journal, a line each.

    A process that is killed, or a full disk, leaves half a line; if another process writes after it, or two at once, a
    line holds several records; a power failure can leave zero bytes or empty lines.

    Raises:
        ValueError: a record of a trial that no record before it creates. Optuna numbers trials in the order of their
            records, so each later one would take the place of the one before it.
    """
    *lines, last = path.read_bytes().split(b"\n")
    mended, lost = [], []
    created = dict.fromkeys(_CREATED_BY, 0)
    for number, line in enumerate(lines, start=1):
        records = _records(line)
        mended += records
        for record in map(json.loads, records):
            for kind, code in _CREATED_BY.items():
                if record.get(kind, -1) >= created[kind]:
                    damaged = f" (half a record is in line {', '.join(lost)})" if lost else ""
                    raise ValueError(
                        f"{path}, line {number}: {kind.replace('_id', '')} {record[kind]} has no record that creates "
                        f"it{damaged}, so that the journal has lost records; restore it, or start the search in "
                        "another folder"
                    )
                created[kind] += record["op_code"] == code
        if line.strip(b"\0\r ") and b"".join(records) != line.replace(b"\0", b"").strip():
            lost.append(str(number))
    if lost:
        logger.warning("warning: %s had half a record in line %s, which is lost", path, ", ".join(lost))
    if last or mended != lines:
        with atomic_write(path) as file:
            file.write(b"".join(record + b"\n" for record in mended))


def _records(line: bytes) -> list[bytes]:
    """The whole records in a line, each a JSON object that begins with its code."""
    records = []
    for part in line.replace(b"\0", b"").decode("utf-8", "replace").split(_RECORD)[1:]:
        with contextlib.suppress(ValueError):
            _, end = json.JSONDecoder().raw_decode(_RECORD + part)
            records.append((_RECORD + part)[:end].encode())
    return records


def open_study(storage: BaseStorage, name: str, prune_after: int | None) -> optuna.Study:
    """The study of that name, created if there is none; ``prune_after`` epochs a trial can be pruned."""
    return optuna.create_study(
        study_name=name,
        storage=storage,
        load_if_exists=True,
        sampler=optuna.samplers.RandomSampler(),  # proposes nothing: see propose
        pruner=optuna.pruners.NopPruner()
        if prune_after is None
        else optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=prune_after),
    )


def add_trial(study: optuna.Study, values: Values, space: Space) -> None:
    """Add a running trial in one step: a process killed in ``Study.ask`` could leave one with some of its values."""
    state = optuna.trial.TrialState.RUNNING
    study.add_trial(optuna.trial.create_trial(state=state, params=values, distributions=_distributions(space)))


def running_trial(study: optuna.Study, storage: BaseStorage, number: int) -> optuna.Trial:
    """The running trial of that number, whichever process began it."""
    study_id = storage.get_study_id_from_name(study.study_name)
    return optuna.Trial(study, storage.get_trial_id_from_study_id_trial_number(study_id, number))


def propose(space: Space, trials: list[FrozenTrial], max_trials: int, seed: int) -> Values:
    """Values for the next trial: a function of the trials so far and the seed, so that a search can be resumed.

    The combinations of choices are tried in order if there are enough trials for all of them. Otherwise Optuna's TPE
    sampler proposes values, and no combination of a finite space is tried twice.
    """
    tried = [trial.params for trial in trials]
    left = [values for values in combinations(space) or () if values not in tried]
    if left and len(tried) + len(left) <= max_trials:
        return left[0]
    values: Values = {}
    for redraw in range(_MAX_REDRAWS):
        sampler_seed = int(np.random.SeedSequence([seed, len(trials), redraw]).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler(seed=sampler_seed, multivariate=True, constant_liar=True)
        study = optuna.create_study(sampler=sampler)
        study.add_trials(trials)
        values = study.ask(_distributions(space)).params
        if values not in tried:
            return values
    return left[np.random.default_rng([seed, len(trials)]).integers(len(left))] if left else values


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    def distribution(name: str, values: tuple[Any, ...] | Range) -> BaseDistribution:
        if not isinstance(values, Range):
            return CategoricalDistribution(values)
        if is_float(name):
            return FloatDistribution(values.low, values.high, log=values.log)
        return IntDistribution(int(values.low), int(values.high), log=values.log)

    return {name: distribution(name, values) for name, values in space.items()}
