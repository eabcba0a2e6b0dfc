"""Files that are either whole or as they were before: checkpoints and results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write into, which takes the place of ``path`` only once all of it is on the disk.

    Whatever goes wrong on the way, a full disk included, leaves what was at ``path`` untouched.
    """
    # In the same folder, hence on the same file system: only there is the replacement one step.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write tensors and plain values to ``path``, atomically."""
    with replacing(path) as file:
        torch.save(content, file)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What :func:`save` wrote, on ``device``; a file is never trusted with running code."""
    return torch.load(path, map_location=device, weights_only=True)
