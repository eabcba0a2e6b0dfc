"""Ctrl-C and SIGTERM: a run ends between two steps, and the second time at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Handler = Callable[[int, Any], None]


class Interrupted(KeyboardInterrupt):
    """Somebody stopped the run.

    Attributes:
        signum: ``SIGINT`` (Ctrl-C) or ``SIGTERM``.
    """

    def __init__(self, signum: int) -> None:
        super().__init__("interrupted")
        self.signum = signum


@contextmanager
def raised() -> Iterator[None]:
    """Within, SIGTERM too raises an exception, as Ctrl-C does: whatever is open is closed in good order."""
    with _handled(_raise):
        yield


class Deferred:
    """Within, a first Ctrl-C or SIGTERM is only noted, in ``asked``; a second one is not kept waiting.

    For the loop, which looks here after each step.
    """

    def __init__(self) -> None:
        self.asked: int | None = None

    @contextmanager
    def within(self) -> Iterator[Deferred]:
        with _handled(self._note):
            yield self

    def _note(self, signum: int, frame: Any) -> None:
        if self.asked is not None:
            raise Interrupted(signum)
        self.asked = signum


def _raise(signum: int, frame: Any) -> None:
    raise Interrupted(signum)


@contextmanager
def _handled(handler: Handler) -> Iterator[None]:
    # Only a main thread gets signals; one that is ignored (SIGINT of a command in the background) stays so.
    mine = [
        signum
        for signum in (signal.SIGINT, signal.SIGTERM)
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signum) != signal.SIG_IGN
    ]
    before = {signum: signal.signal(signum, handler) for signum in mine}
    try:
        yield
    finally:
        for signum, previous in before.items():
            signal.signal(signum, signal.SIG_DFL if previous is None else previous)
