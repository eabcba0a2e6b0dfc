"""One writer at a time in a run's folder."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

fcntl: Any = None  # where there is none (Windows)
with suppress(ImportError):
    fcntl = importlib.import_module("fcntl")


@contextmanager
def alone(folder: Path, wait: bool = False) -> Iterator[None]:
    """Within, no other run can write in ``folder``: neither another process nor this one a second time.

    The lock is the kernel's, on the folder itself: it leaves no file, and ends with its holder, SIGKILL included. Where
    the system or the disk has no such locks, that is told on stderr.

    Args:
        folder: or a file, for what is done there.
        wait: for others to be done, in silence; for what takes them a moment.

    Raises:
        ValueError: another run is writing there.
    """
    handle = None if fcntl is None else os.open(folder, os.O_RDONLY)
    try:
        if (handle is None or not _locked(handle, folder, wait)) and not wait:
            tqdm.write(
                f"warning: {str(folder)!r} cannot be locked on this system; see to it that no other run writes there",
                file=sys.stderr,
            )
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _locked(handle: int, folder: Path, wait: bool) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise ValueError(
                f"another run is writing in {str(folder)!r}; wait until it ends, or stop it (Ctrl-C or SIGTERM)"
            ) from None
        return False  # some network disks
    return True
