"""A table whose process is killed repeatedly; a program for ``test_rows.py``, in a process of its own.

    python killed.py FOLDER KILLS OPTION...

runs ``noisin reproduce`` with the options in FOLDER/0 without a break, then in FOLDER/1, where it is killed by SIGKILL
and started again; a table that is done in between is followed by another in FOLDER/2, until there have been KILLS, and
the last is left to end. Moments are drawn from what a run does (a file operation, a gradient step) and not from the
clock, so that a kill comes in time on a machine of any speed. Children are forks, so that the library is loaded once.
"""

import contextlib
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from noisin_pyro.cli import main

DELAY = 0.02  # maximum number of seconds from an event to the kill, so that it can also occur within a write


def at_each_event(folder: Path, do: Callable[[], None]) -> None:
    """From now on, call ``do`` before each operation on files in the folder, and after each gradient step."""

    def audit(event: str, arguments: tuple) -> None:
        if event in ("open", "os.rename", "os.remove", "os.mkdir") and str(arguments[0]).startswith(str(folder)):
            do()

    sys.addaudithook(audit)
    register_optimizer_step_post_hook(lambda *_: do())


def start(folder: Path, options: list[str], deadly: int | None, delay: float) -> int:
    """Start the command in a fork that is killed at the given event; returns its process id."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        events = 0

        def count() -> None:
            nonlocal events
            events += 1
            if events == deadly and delay:
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
            elif events == deadly:
                os.kill(os.getpid(), signal.SIGKILL)

        at_each_event(folder, count)
        code = 1
        with folder.with_suffix(".err").open("a", buffering=1) as err, contextlib.redirect_stderr(err):
            code = main(["reproduce", *options, "--folder", str(folder)])
        folder.with_suffix(".events").write_text(str(events))
        os._exit(code)
    return child


def was_killed(child: int) -> bool:
    """Whether the child was killed; otherwise its status must be 0."""
    _, status = os.waitpid(child, 0)
    if status and not os.WIFSIGNALED(status):
        raise SystemExit(f"a run ended with status {status}")
    return bool(status)


if __name__ == "__main__":
    root, kills_left, options = Path(sys.argv[1]).resolve(), int(sys.argv[2]), sys.argv[3:]
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # loads what every child needs
    assert not was_killed(start(root / "0", options, None, 0.0))
    events, moments, number = int((root / "0.events").read_text()), random.Random(), 1
    while True:
        deadly = moments.randint(1, events) if kills_left else None
        if was_killed(start(root / str(number), options, deadly, moments.choice([0.0, moments.uniform(0.0, DELAY)]))):
            kills_left -= 1
        elif kills_left:
            number += 1
        else:
            break
