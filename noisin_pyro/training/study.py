"""What Optuna does for a search: it keeps the trials, proposes values, and says which trials are hopeless."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from noisin_pyro._files import exclusive_lock
from noisin_pyro.training.kinds import fits
from noisin_pyro.training.space import Range, Space, Values, combinations, fields

JOURNAL = "optuna.journal"
_REDRAWN = 20  # proposals that have been tried already before something else is taken


@contextmanager
def quiet() -> Iterator[Any]:
    """Optuna itself, within without its log and its warnings of what is experimental.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise ValueError(
            f'a search needs Optuna ({error}); install it with: pip install "noisin_pyro[sweep]"'
        ) from error
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield optuna
    finally:
        optuna.logging.set_verbosity(verbosity)


class _Turn:
    """A lock for Optuna's journal that ends with its holder, SIGKILL included; Optuna's own then lasts 30 seconds."""

    def __init__(self, path: Path) -> None:
        self._path, self._held = path, ExitStack()

    def acquire(self) -> bool:
        self._held.enter_context(exclusive_lock(self._path, wait=True))
        return True

    def release(self) -> None:
        self._held.close()


def opened(optuna: Any, url: str | None, folder: Path, name: str, warm_up: int | None) -> Any:
    """The study of that name, made if there is none.

    Args:
        url: of a database; ``None`` is a journal in ``folder``.
        warm_up: epochs before a trial can be called hopeless; ``None`` calls none so.

    Raises:
        ValueError: a database that cannot be opened.
    """
    try:
        if url is None:
            path = folder / JOURNAL
            _mend(path)
            journal = optuna.storages.journal
            storage: Any = journal.JournalStorage(journal.JournalFileBackend(str(path), lock_obj=_Turn(path)))
        else:
            storage = url
        return optuna.create_study(
            study_name=name,
            storage=storage,
            load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(),  # asked for nothing: see proposed
            pruner=optuna.pruners.NopPruner()
            if warm_up is None
            else optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=warm_up),
        )
    except Exception as error:  # of any database's driver
        told = str(error).partition("\n")[0]
        raise ValueError(
            f"storage {without_password(url) if url else str(folder / JOURNAL)!r} cannot be opened "
            f"({type(error).__name__}: {told}); name another, or leave it out"
        ) from error


def proposed(optuna: Any, space: Space, trials: list[Any], wanted: int, seed: int) -> Values:
    """Values for the next trial: a function of the trials before and of the seed, so that a kill changes nothing.

    A space of choices is gone through in order, where ``wanted`` trials suffice for that; else Optuna's tree-structured
    Parzen estimator proposes, and nothing finite is tried twice.
    """
    tried = [trial.params for trial in trials]
    left = [each for each in combinations(space) or () if each not in tried]
    if left and len(tried) + len(left) <= wanted:
        return left[0]
    values: Values = {}
    for redrawn in range(_REDRAWN):
        random = int(np.random.SeedSequence([seed, len(trials), redrawn]).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler(seed=random, multivariate=True, constant_liar=True)
        study = optuna.create_study(sampler=sampler)
        study.add_trials(trials)
        values = {**study.ask(distributions(optuna, space)).params}
        if values not in tried:
            return values
    return left[np.random.default_rng([seed, len(trials)]).integers(len(left))] if left else values


def distributions(optuna: Any, space: Space) -> dict[str, Any]:
    """The space in Optuna's words."""

    def each(name: str, values: tuple[Any, ...] | Range) -> Any:
        kinds = optuna.distributions
        if not isinstance(values, Range):
            return kinds.CategoricalDistribution(values)
        kind = kinds.FloatDistribution if fits(0.5, fields()[name]) else kinds.IntDistribution
        return kind(values.low, values.high, log=values.log)

    return {name: each(name, values) for name, values in space.items()}


def without_password(url: str) -> str:
    """The address of a database, fit to be read by others.

    Raises:
        ValueError: no such address.
    """
    from sqlalchemy.engine import make_url  # comes with Optuna
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError as error:
        raise ValueError(
            f"storage must be the address of a database, such as sqlite:///sweeps.db, got {url!r}"
        ) from error


def _mend(path: Path) -> None:
    """Drop half a line, which a full disk or a power cut leaves at a journal's end, before another is added to it."""
    if not path.exists():
        return
    with exclusive_lock(path, wait=True):
        content = path.read_bytes()
        if (whole := content.rfind(b"\n") + 1) < len(content):
            os.truncate(path, whole)
