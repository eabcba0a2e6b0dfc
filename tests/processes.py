"""Programs that tests start."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

HANGS = 1200
"""Seconds after which a program counts as hanging. It is far more than any takes on a busy machine."""


def environment() -> dict[str, str]:
    """Variables under which a program imports this repository's package, and computes with one thread."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}


def run_or_fail(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; if it hangs, stop it and fail with what it printed."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(), text=True, start_new_session=True, **pipes) as process:
        try:
            out, err = process.communicate(timeout=HANGS)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGTERM)  # its forks too; torchrun ends its workers
            out, err = process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                pytest.fail(f"{command} has not ended in {HANGS} seconds; it printed\n{out}\n{err}")
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)
