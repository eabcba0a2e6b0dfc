"""Runs killed at random moments until they are done; a program for ``test_killed.py``, in a process of its own.

    python killed.py FOLDER KILLS OPTION...

starts ``noisin train`` in FOLDER/1 with the options, kills it with SIGKILL, resumes it, and so on; a run that ends in
between is followed by another in FOLDER/2, until there have been KILLS; then the last run is left to end. Children are
forks, so that the library is loaded only once. Prints the kills of each run.
"""

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from noisin_pyro.cli import main


def start(folder: Path, options: list[str]) -> int:
    """Start or resume ``noisin train`` in a fork; returns its process id."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        begun = (folder / "config.json").exists()
        if not begun and folder.exists():
            for path in folder.iterdir():  # killed while writing its configuration
                path.unlink()
        code = 1
        with folder.with_suffix(".err").open("a", buffering=1) as err, contextlib.redirect_stderr(err):
            code = main(["train", "--resume", str(folder)] if begun else ["train", "--folder", str(folder), *options])
        os._exit(code)
    return child


def ended(child: int) -> bool:
    """Whether the child has ended by itself, which it must do with status 0."""
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid and status:
        raise SystemExit(f"a run ended with status {status}")
    return bool(pid)


def checkpoint_times(folder: Path) -> list[float]:
    """When each checkpoint of the run, or of its twin, was written."""
    times = []
    for path in (folder / "last.pt", folder / "deterministic" / "last.pt"):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return times


def run(folder: Path, kills_left: int, options: list[str], moments: random.Random) -> int:
    """Finish one run; returns the number of kills."""
    kills = 0
    while True:
        before, child, begun = checkpoint_times(folder), start(folder, options), time.monotonic()
        # A random time after the start or, every other time, after the first new checkpoint.
        moment, counting = moments.uniform(0.0, 0.5), kills % 2 == 0
        while kills == kills_left or not counting or time.monotonic() < begun + moment:
            if ended(child):
                return kills
            if not counting and checkpoint_times(folder) != before:
                begun, counting = time.monotonic(), True
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1


if __name__ == "__main__":
    root, left, moments = Path(sys.argv[1]), int(sys.argv[2]), random.Random()
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # loads what every child needs
    number = 0
    while number == 0 or left > 0:
        number += 1
        left -= (struck := run(root / str(number), left, sys.argv[3:], moments))
        print(f"kills {struck}", flush=True)
