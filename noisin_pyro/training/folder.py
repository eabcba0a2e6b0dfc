"""A run's folder: where it is, and what tells a reader how its numbers came about."""

from __future__ import annotations

import itertools
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from noisin_pyro.training.checkpoint import PARTS, replacing

CONFIG, LOG, BEST, LAST, BEFORE, RESULT, CURVES, SPREADS = (
    "config.json", "log.csv", "best.pt", "last.pt", "before.pt", "result.json", "curves.png", "spreads.png"
)  # fmt: skip


def make(folder: Path | None, name: str) -> Path:
    """An empty folder for a run: the one given, or ``runs/<name>-1`` and so on, the first that is free.

    Raises:
        ValueError: a given folder that holds something, or a path that is no folder.
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
    if any(folder.iterdir()):
        raise ValueError(
            f"folder {str(folder)!r} is not empty, and a run is not overwritten; choose another, or remove it"
        )
    return folder


def sweep(folder: Path) -> None:
    """Remove the unfinished files that a run leaves if it is killed while it writes."""
    for path in folder.glob(PARTS):
        path.unlink()


def provenance(device: torch.device) -> dict[str, Any]:
    """Versions, device and threads: what a number depends on beside the configuration."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("noisin_pyro", "torch", "pyro-ppl", "numpy")},
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Readable JSON, written whole or not at all; paths as text."""
    with replacing(path) as file:
        file.write((json.dumps(content, indent=2, default=str) + "\n").encode())
