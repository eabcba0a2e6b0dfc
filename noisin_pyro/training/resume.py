"""Going on with a run: its configuration is that of its folder, and options may not say otherwise."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from noisin_pyro.training import folder
from noisin_pyro.training.build import resolved
from noisin_pyro.training.config import Config, to_json
from noisin_pyro.training.locks import alone
from noisin_pyro.training.provenance import provenance


def stored(where: Path) -> Config:
    """The configuration of the run in ``where``, as one that resumes it.

    Raises:
        ValueError: no run's folder, or one whose configuration cannot be read.
    """
    config = folder.read_config(where)
    return replace(config, run=replace(config.run, resume=where))


def lengthen(where: Path, epochs: int) -> None:
    """Let the run in ``where``, and its twin there, have so many epochs at most, be it finished or not.

    ``train`` with ``Run(resume=where)`` then trains the epochs that are missing, to the same numbers as if the run had
    been asked for them at once; and tests once more. One that its patience ended is not longer for it.

    Args:
        where: the run's folder.
        epochs: at least as many as it was asked for before.

    Raises:
        ValueError: no run's folder, fewer epochs than before, another process that writes there, or a finished run
            without its last checkpoint; nothing is changed then.
    """
    runs = [run for run in (where, where / "deterministic") if (run / folder.CONFIG).exists()] or [where]
    with ExitStack() as locks:
        for run in runs:
            before = folder.read_config(run).optimisation.epochs
            if epochs < before:
                raise ValueError(
                    f"epochs must be at least {before}, as the run in {str(run)!r} was asked, got {epochs}"
                )
            if epochs > before and (run / folder.RESULT).exists() and not (run / folder.LAST).exists():
                raise ValueError(
                    f"epochs {epochs}: the run in {str(run)!r} is finished after at most {before}, and its last "
                    f"checkpoint, {folder.LAST}, has been removed; train a new one"
                )
            locks.enter_context(alone(run))
        for run in runs:
            config = folder.read_config(run)
            if epochs == config.optimisation.epochs:
                continue
            began = json.loads((run / folder.CONFIG).read_text(encoding="utf-8"))
            longer = replace(config, optimisation=replace(config.optimisation, epochs=epochs))
            # First the result, then the options: a run killed between the two is unfinished, with what it had.
            (run / folder.RESULT).unlink(missing_ok=True)
            folder.write_json(run / folder.CONFIG, began | json.loads(to_json(longer)))


def refuse_contradictions(given: Config, before: Config) -> None:
    """Raise if ``given`` is not ``before`` in every option.

    Raises:
        ValueError: naming the options.
    """
    options = (_options(replace(each, data=resolved(each.data))) for each in (given, before))
    pairs = zip(*options, strict=True)
    told = [f"{name} {new!s} (there: {old!s})" for (name, new), (_, old) in pairs if new != old]
    if told:
        raise ValueError(f"a resumed run keeps its options, got {', '.join(told)}; leave them out, or train a new one")


def completed(given: Config, before: Config) -> Config:
    """``given`` with ``before``'s value of each option that is left at its default."""
    default = Config()
    groups: dict[str, Any] = {}
    for group in dataclasses.fields(Config):
        new, old, usual = (getattr(config, group.name) for config in (given, before, default))
        names = [field.name for field in dataclasses.fields(new)]
        left = {name: getattr(old, name) for name in names if getattr(new, name) == getattr(usual, name)}
        groups[group.name] = replace(new, **left)
    return replace(given, **groups)


def tell_changes(where: Path) -> None:
    """Warn, on stderr, if versions, device, threads or processes are not those that the run began with."""
    began = json.loads((where / folder.CONFIG).read_text(encoding="utf-8"))
    now = provenance(torch.device(began["run"]["device"]))
    changed = [key for key, value in now.items() if began.get(key, value) != value]
    if changed:
        tqdm.write(
            f"warning: {' and '.join(changed)} changed since this run began; "
            + ("its noise will be other noise" if "processes" in changed else "numbers may differ in the last digits"),
            file=sys.stderr,
        )


def _options(config: Config) -> Iterator[tuple[str, Any]]:
    for group in dataclasses.fields(config):
        values = getattr(config, group.name)
        for field in dataclasses.fields(values):
            yield field.name.replace("_", " "), getattr(values, field.name)
