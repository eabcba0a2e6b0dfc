"""Time from a table to a forecast, by the commands and the code of ``docs/howto/your-own-series.md``.

``python benchmarks/first_forecast.py`` writes ``results/first_forecast.json``: the median wall-clock seconds of each
step in a process of its own, start-up included, with ``OMP_NUM_THREADS=1``.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import tyro

from noisin_pyro._files import write_json
from noisin_pyro.training.provenance import provenance

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "howto" / "your-own-series.md"
RESULT = ROOT / "results" / "first_forecast.json"


def steps(page: str) -> tuple[str, dict[str, list[str]]]:
    """The code that makes the tables, and the commands to time by name: to train, to forecast, and both in Python."""
    cells = re.findall(r"```\{code-cell\} python\n(.*?)```", page, re.S)
    commands = re.search(r"```sh\n(.*?)```", page, re.S)
    assert commands is not None
    train, forecast = (shlex.split(line)[1:] for line in commands[1].splitlines())
    program = [sys.executable, "-m", "noisin_pyro"]
    both = next(cell for cell in cells if "nz.forecast(" in cell)
    return cells[0], {
        "noisin train": [*program, *train],
        "noisin forecast": [*program, *forecast],
        "in Python": [sys.executable, "-c", both],
    }


def measure(rounds: int) -> dict[str, float]:
    """Median seconds of each step."""
    tables, commands = steps(PAGE.read_text(encoding="utf-8"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        folder = tempfile.mkdtemp()
        try:
            subprocess.run([sys.executable, "-c", tables], cwd=folder, env=environment, check=True)
            for name, command in commands.items():
                start = time.perf_counter()
                subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
                seconds[name].append(time.perf_counter() - start)
        finally:
            shutil.rmtree(folder)
    return {name: statistics.median(each) for name, each in seconds.items()}


def main(rounds: int = 3) -> None:
    """Measure, and write the result.

    Args:
        rounds: number of times that each step is run.
    """
    torch.set_num_threads(1)  # as the commands have; the result says so
    write_json(RESULT, {"seconds": measure(rounds), "rounds": rounds} | provenance(torch.device("cpu")))


if __name__ == "__main__":
    tyro.cli(main)
