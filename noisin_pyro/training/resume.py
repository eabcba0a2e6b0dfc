"""Going on with a run: its configuration is that of its folder, and options may not say otherwise."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from noisin_pyro.training import folder
from noisin_pyro.training.build import located
from noisin_pyro.training.config import Config


def stored(where: Path) -> Config:
    """The configuration of the run in ``where``, as one that resumes it.

    Raises:
        ValueError: no run's folder, or one whose configuration cannot be read.
    """
    config = folder.read_config(where)
    return dataclasses.replace(config, run=dataclasses.replace(config.run, resume=where))


def refuse_contradictions(given: Config, before: Config) -> None:
    """Raise if ``given`` is not ``before`` in every option.

    Raises:
        ValueError: naming the options.
    """
    options = (_options(dataclasses.replace(each, data=located(each.data))) for each in (given, before))
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
        groups[group.name] = dataclasses.replace(new, **left)
    return dataclasses.replace(given, **groups)


def tell_changes(where: Path) -> None:
    """Warn, on stderr, if versions, device, threads or processes are not those that the run began with."""
    began = json.loads((where / folder.CONFIG).read_text(encoding="utf-8"))
    now = folder.provenance(torch.device(began["run"]["device"]))
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
