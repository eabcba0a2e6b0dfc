"""Files that are either whole or as they were before: checkpoints and results."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

PARTS = ".*.part"  # the names of files that are not whole yet


@contextmanager
def replacing(path: Path, before: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write into, which takes the place of ``path`` only once all of it is on the disk.

    Whatever goes wrong on the way, a full disk included, leaves what was at ``path`` untouched.

    Args:
        before: where what was at ``path`` is kept.
    """
    # In the same folder, hence on the same file system: only there is the replacement one step.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if before is not None and path.exists():
            os.replace(path, before)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save(path: Path, content: dict[str, Any], before: Path | None = None) -> None:
    """Write tensors and plain values to ``path``, atomically; what was there goes to ``before``, if that is given."""
    whole = io.BytesIO()  # torch, writing into the file itself, would hide a full disk behind an error of its own
    torch.save(content, whole)
    with replacing(path, before) as file:
        file.write(whole.getbuffer())


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What :func:`save` wrote, on ``device``; a file is never trusted with running code.

    Raises:
        ValueError: a file that is truncated, damaged, or holds more than tensors and plain values.
    """
    whole = io.BytesIO(path.read_bytes())  # a disk's errors come from here, those of the content from below
    try:
        if (damaged := zipfile.ZipFile(whole).testzip()) is not None:  # torch itself does not look at the check sums
            raise zipfile.BadZipFile(damaged)
        whole.seek(0)
        content = torch.load(whole, map_location=device, weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can fail anywhere in the archive or in the pickle within
        raise ValueError(
            f"checkpoint {str(path)!r} cannot be read: it is damaged, or holds more than weights "
            f"({type(error).__name__})"
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"checkpoint {str(path)!r} cannot be read: it holds a {type(content).__name__}")
    return content
