"""Every comparison of speed: ``python benchmarks/speed.py`` writes ``results/speed/cpu/*.json`` and ``table.md`` there.

Contestants (``timing/contestants.py``) take turns in one process; each comparison (``timing/comparisons.py``) ends with
the ratios that we want. It goes on where it was broken off: what has a JSON file is not run again, but
for its memory where that was left out. ``--device cuda`` does the same on a GPU, into ``results/speed/cuda``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from timing.comparisons import COMPARISONS, selected
from timing.contestants import CONTESTANTS
from timing.report import summary, write_table
from timing.run import How, measured, remembered

from noisin_pyro._lookup import known
from noisin_pyro.training.folder import write_json

ROOT = Path(__file__).parents[1]
DEFAULT = How()


def main(
    shapes: tuple[str, ...] = (),
    contestants: tuple[str, ...] = (),
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int = 2,
    again: bool = False,
    folder: Path | None = None,
    how: Annotated[How, tyro.conf.arg(name="")] = DEFAULT,
) -> None:
    """Every comparison of speed.

    Args:
        shapes: comparisons by name, or by what their names begin with; all by default.
        contestants: some of them only; all by default.
        device: where to compute.
        threads: of the CPU.
        again: measure what has been measured too.
        folder: for the numbers; by default results/speed/DEVICE, of some contestants only runs/speed/DEVICE.
        how: how to measure.
    """
    for name in contestants:
        known("contestants", name, CONTESTANTS)
    names = selected(shapes)
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' is not available on this machine; take 'cpu'")
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of the processes that memory is measured in
    torch.set_num_threads(threads)
    folder = ROOT / ("runs" if contestants else "results") / "speed" / device if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / f"{name}.json"
        comparison = COMPARISONS[name].only(contestants).on(device)
        if comparison.entries and (again or not path.exists()):
            write_json(path, measured(comparison, how, torch.device(device), threads))
        elif path.exists() and how.memory:
            told = json.loads(path.read_text(encoding="utf-8"))
            if not told["settings"]["memory"]:
                write_json(path, remembered(told, comparison, torch.device(device), threads))
        if path.exists():
            print(summary(name, json.loads(path.read_text(encoding="utf-8"))), flush=True)
    write_table(folder)


if __name__ == "__main__":
    tyro.cli(main)
