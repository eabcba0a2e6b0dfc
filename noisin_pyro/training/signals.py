"""Ctrl-C and SIGTERM: training stops between two steps, or at once at the second signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Interrupted(KeyboardInterrupt):
    """Training was interrupted.

    Attributes:
        signum: ``SIGINT`` (Ctrl-C) or ``SIGTERM``.
    """

    def __init__(self, signum: int) -> None:
        super().__init__("interrupted")
        self.signum = signum


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """A context in which SIGTERM raises :class:`Interrupted`, as Ctrl-C does, so that context managers are exited."""
    with _handled_by(_raise):
        yield


class DeferredSignals:
    """Records the first Ctrl-C or SIGTERM in ``received``; a second one raises at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    @contextmanager
    def deferred(self) -> Iterator[DeferredSignals]:
        """A context for a loop that reads ``received`` after each step."""
        with _handled_by(self._record):
            yield self

    def _record(self, signum: int, frame: Any) -> None:
        if self.received is not None:
            raise Interrupted(signum)
        self.received = signum


def _raise(signum: int, frame: Any) -> None:
    raise Interrupted(signum)


@contextmanager
def _handled_by(handler: Callable[[int, Any], None]) -> Iterator[None]:
    # Only the main thread gets signals. An ignored signal, such as SIGINT in a background command, stays ignored.
    handled = [
        signum
        for signum in (signal.SIGINT, signal.SIGTERM)
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signum) != signal.SIG_IGN
    ]
    previous = {signum: signal.signal(signum, handler) for signum in handled}
    try:
        yield
    finally:
        for signum, before in previous.items():
            signal.signal(signum, signal.SIG_DFL if before is None else before)
