"""Files on disk: atomic writes, JSON, and exclusive locks."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

PARTIAL = ".*.part"
"""Pattern of the names of files that are not complete yet."""

LOCK = ".lock"

logger = logging.getLogger("noisin_pyro")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name ``path`` in the operating system's errors that name no file, as those of a full disk while it is written."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def atomic_write(path: Path, backup: Path | None = None) -> Iterator[BinaryIO]:
    """Open a new file, for writing and reading, that replaces ``path`` once all of it is on disk.

    If anything goes wrong, a full disk included, the file at ``path`` stays as it was.

    Args:
        backup: new path of the previous file.
    """
    # In the same folder, and so on the same file system: only there is the replacement atomic.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with naming(path), temporary.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if backup is not None and path.exists():
            os.replace(path, backup)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write indented JSON atomically, with paths as text."""
    with atomic_write(path) as file:
        file.write((json.dumps(content, indent=2, default=str) + "\n").encode())


@contextmanager
def exclusive_lock(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold a lock that neither another process nor this one can acquire a second time.

    The operating system releases it when its holder ends, even if that is killed. The lock is a hidden file: ``.lock``
    in a folder, ``.NAME.lock`` beside a file. On a disk without locks a warning is logged instead.

    Args:
        path: a folder, or a file, to lock.
        wait: wait until the lock is free.

    Raises:
        ValueError: it is held, and ``wait`` is false.
    """
    lock = FileLock(path / LOCK if path.is_dir() else path.with_name(f".{path.name}{LOCK}"))
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise ValueError(
            f"another run is writing in {str(path)!r}; wait until it ends, or stop it (Ctrl-C or SIGTERM)"
        ) from None
    except OSError as error:
        logger.warning(
            "warning: %r cannot be locked (%s); make sure that no other run writes there", str(path), error.strerror
        )
    try:
        yield
    finally:
        if lock.is_locked:
            # Removed while it is held, so that no lock outlives its use: whoever waits for the removed file sees that
            # it has no name any more, and locks a new one.
            with suppress(OSError):  # Windows cannot remove an open file
                Path(lock.lock_file).unlink()
            lock.release()
