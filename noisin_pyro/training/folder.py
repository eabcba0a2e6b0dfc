"""A run's folder: where it is, and what tells a reader how its numbers came about."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

from torch import nn

from noisin_pyro.training import checkpoint
from noisin_pyro.training.checkpoint import PARTS, replacing
from noisin_pyro.training.config import Config, from_json
from noisin_pyro.training.kinds import alike, fits

CONFIG, LOG, BEST, LAST, BEFORE, RESULT, CURVES, SPREADS = (
    "config.json", "log.csv", "best.pt", "last.pt", "before.pt", "result.json", "curves.png", "spreads.png"
)  # fmt: skip


def make(folder: Path | None, name: str) -> Path:
    """A folder for a run: the one given, or ``runs/<name>-1`` and so on, the first that is free.

    Raises:
        ValueError: a path that is no folder.
    """
    if folder is None:
        for number in itertools.count(1):
            folder = Path("runs") / f"{name}-{number}"
            try:
                folder.mkdir(parents=True)
                return folder
            except FileExistsError:
                continue
    assert folder is not None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"folder {str(folder)!r} is, or lies below, a file; choose another one") from error
    return folder


def require_empty(folder: Path) -> None:
    """Refuse a folder that holds something.

    Raises:
        ValueError: it does.
    """
    if any(folder.iterdir()):
        raise ValueError(
            f"folder {str(folder)!r} is not empty, and a run is not overwritten; choose another, or remove it"
        )


def read_config(folder: Path) -> Config:
    """The configuration of the run in ``folder``.

    Raises:
        ValueError: no run's folder, or a configuration that is damaged or of a version that had other options.
    """
    path = folder / CONFIG
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(
            f"{str(folder)!r} is not a run's folder: it has no {CONFIG}, so no run to resume or to read; name "
            "the folder of one, or train a new one"
        ) from error
    try:
        return from_json(content.decode())
    except ValueError as error:
        raise ValueError(f"{path} is damaged, or of another version: {error}; restore it, or train anew") from error


def modules(model: nn.Module, guide: nn.Module | None) -> dict[str, nn.Module]:
    """What is trained, by the names under which checkpoints hold it."""
    return {"model": model} if guide is None else {"model": model, "guide": guide}


def read_best(folder: Path, model: nn.Module, guide: nn.Module | None = None) -> dict[str, Any]:
    """What ``best.pt`` holds, which is for modules such as these: their states, and ``"epoch"``.

    Raises:
        ValueError: it is not there, damaged, of another model, or its weights are not finite.
    """
    path = folder / BEST
    try:
        best = checkpoint.load(path)
    except FileNotFoundError as error:
        raise ValueError(
            f"{str(folder)!r} has no {BEST}: no epoch of this run was done, or it was removed; train anew"
        ) from error
    states = {name: dict(module.state_dict()) for name, module in modules(model, guide).items()}
    if not all(alike(best.get(name), state) for name, state in states.items()):
        raise ValueError(
            f"{path} does not fit the model that {CONFIG} and the data make: one of them has changed since it "
            "was trained (pydocs changes with the version of Python); restore it, or train anew"
        )
    values = itertools.chain(*(best[name].values() for name in states))
    if not fits(best.get("epoch"), int) or not all(value.isfinite().all() for value in values):
        raise ValueError(f"{path} is damaged: it lacks its epoch, or its weights are not finite; train anew")
    return best


def load_best(folder: Path, model: nn.Module, guide: nn.Module | None = None) -> dict[str, Any]:
    """Bring the modules to the states that ``best.pt`` holds; returns, and raises, as :func:`read_best`."""
    best = read_best(folder, model, guide)
    for name, module in modules(model, guide).items():
        module.load_state_dict(best[name])
    return best


def sweep(folder: Path) -> None:
    """Remove the unfinished files that a run leaves if it is killed while it writes."""
    for path in folder.glob(PARTS):
        path.unlink()


def clear(folder: Path) -> None:
    """Remove what only an unfinished run needs; its last checkpoint stays, so that it can be lengthened."""
    (folder / BEFORE).unlink(missing_ok=True)
    sweep(folder)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Readable JSON, written whole or not at all; paths as text."""
    with replacing(path) as file:
        file.write((json.dumps(content, indent=2, default=str) + "\n").encode())
