"""Resuming a run with the options in its folder, which the given options must not contradict."""

from __future__ import annotations

import dataclasses
import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch

from noisin_pyro._files import write_json
from noisin_pyro.training.build import resolved
from noisin_pyro.training.config import Config, flat, label, to_json, with_values
from noisin_pyro.training.description import DataDescription
from noisin_pyro.training.distributed import SINGLE, World
from noisin_pyro.training.provenance import provenance
from noisin_pyro.training.rundir import checkpointer
from noisin_pyro.training.rundir.layout import BEST, CONFIG, LAST, RESULT, read_config, read_settings

logger = logging.getLogger("noisin_pyro")


def stored_config(folder: Path) -> Config:
    """Read the configuration of the run in ``folder``, with ``run.resume`` set to resume it.

    Raises:
        ValueError: not a run's folder, or a configuration that cannot be read.
    """
    return with_values(read_config(folder), {"run.resume": folder})


def config_to_resume(config: Config, epochs: int | None, world: World) -> Config:
    """The stored configuration of the run in ``config.run.resume``, for at most ``epochs`` epochs if that is given.

    Raises:
        ValueError: the run cannot be resumed, options contradict it, ``epochs`` are fewer than before, or the run or
            its twin is finished and cannot be continued.
    """
    folder = config.run.resume
    assert folder is not None
    stored = world.on_rank_zero(lambda: stored_config(folder))
    stored.require_imports(config.import_paths, folder)
    require_same_options(with_stored_defaults(config, stored), stored)
    runs = folder, folder / "deterministic"
    for run in runs:
        DataDescription.read(run)  # a damaged one is refused before anything is written
    warn_of_changes(folder, world)
    if epochs is not None:
        if epochs < (before := stored.optimization.epochs):
            raise ValueError(
                f"epochs must be at least {before}, the maximum of the run in {str(folder)!r}, got {epochs}"
            )
        for run in runs:
            world.on_rank_zero(partial(is_finished, run, epochs))  # raises if it cannot be continued
        stored = with_values(stored, {"optimization.epochs": epochs})
    return with_values(stored, {"run.folder": folder, "run.resume": None})


def is_finished(folder: Path, epochs: int) -> bool:
    """Whether there is a finished run in ``folder``, with a maximum of at least ``epochs`` epochs.

    Raises:
        ValueError: it is finished after fewer, and its last or its best checkpoint is missing or damaged, so that it
            cannot be continued.
    """
    if not (folder / RESULT).exists():
        return False
    if read_config(folder).optimization.epochs >= epochs:
        return True
    for path in (folder / LAST, folder / BEST):
        if not path.exists():
            raise ValueError(
                f"epochs {epochs}: the run in {str(folder)!r} is finished, and its checkpoint {path.name} has been "
                "removed; train a new run"
            )
        checkpointer.load(path)
    return False


def lengthen(folder: Path, epochs: int) -> None:
    """Set the maximum number of epochs of a run that has fewer.

    The run then trains the missing epochs and is tested again; the results are those of a run with this maximum from
    the start. A run that was stopped early by its patience does not get longer.
    """
    config = read_config(folder)
    if config.optimization.epochs >= epochs:
        return
    longer = with_values(config, {"optimization.epochs": epochs})
    settings = read_settings(folder) | json.loads(to_json(longer))
    # The result goes first: a run killed between the two is then unfinished, with the options it had.
    (folder / RESULT).unlink(missing_ok=True)
    write_json(folder / CONFIG, settings)


def require_same_options(config: Config, stored: Config) -> None:
    """Raise if the two differ in an option.

    Raises:
        ValueError: naming the options.
    """
    given, before = (_options(dataclasses.replace(each, data=resolved(each.data))) for each in (config, stored))
    changed = [f"{label(name)} {given[name]} (there: {before[name]})" for name in given if given[name] != before[name]]
    if changed:
        raise ValueError(
            f"a resumed run keeps its options, got {', '.join(changed)}; leave them out, or train a new run"
        )


def with_stored_defaults(config: Config, stored: Config) -> Config:
    """``config`` with the stored value of each option that has its default."""
    given, default = _options(config), _options(Config())
    return with_values(config, {name: old for name, old in _options(stored).items() if given[name] == default[name]})


def warn_of_changes(folder: Path, world: World = SINGLE) -> None:
    """Log a warning if versions, device, threads or processes are not those that the run began with."""
    began = read_settings(folder)
    now = provenance(torch.device(began["run"]["device"]), world.size)
    changed = [key for key, value in now.items() if began.get(key) != value]
    if changed:
        logger.warning(
            "warning: %s changed since this run began; %s",
            " and ".join(changed),
            "its noise will differ" if "processes" in changed else "results may differ in the last digits",
        )


def _options(config: Config) -> dict[str, Any]:
    return flat(dataclasses.asdict(config))
