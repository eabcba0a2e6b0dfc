"""Time training steps of this library, of plain PyTorch and of plain Pyro side by side.

All contestants of a comparison take turns in one process, in many rounds. The table shows each one's median time per
step and, with 95 % intervals, its ratio to plain PyTorch and to this library's own step without noise.

Comparisons that have a result file are not measured again, so that an interrupted run can be continued. If NOISIN_DATA
names a folder with Penn Treebank, WikiText-2 and the chorales, the steps read them; otherwise they read random data.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from timing.comparisons import COMPARISONS, matching
from timing.contestants import CONTESTANTS
from timing.measure import MeasureOptions, add_memory, measure
from timing.report import summary, write_table

from noisin_pyro._files import write_json
from noisin_pyro._lookup import known

ROOT = Path(__file__).parents[1]
DEFAULT = MeasureOptions()
Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="(default: all)")]


def main(
    comparisons: Names = (),
    contestants: Names = (),
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int = 2,
    overwrite: bool = False,
    folder: Annotated[
        Path | None,
        tyro.conf.arg(help_behavior_hint="(default: results/speed/DEVICE; with --contestants runs/speed/DEVICE)"),
    ] = None,
    options: Annotated[MeasureOptions, tyro.conf.arg(name="")] = DEFAULT,
) -> None:
    """Time training steps side by side and write ``table.md`` of all result files.

    Args:
        comparisons: Names of comparisons, or prefixes of names.
        contestants: Names of contestants to restrict the comparisons to.
        device: Device to time on.
        threads: Number of CPU threads.
        overwrite: Measure comparisons again that have a result file.
        folder: Folder of the result files.
        options: How each comparison is measured.
    """
    for name in contestants:
        known("contestants", name, CONTESTANTS)
    names = matching(comparisons)
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' is not available on this machine; use 'cpu'")
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of the processes that measure memory
    torch.set_num_threads(threads)
    folder = ROOT / ("runs" if contestants else "results") / "speed" / device if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / f"{name}.json"
        comparison = COMPARISONS[name].select(contestants, device)
        result = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
        if comparison.entries and (overwrite or result is None):
            result = measure(comparison, options, torch.device(device), threads)
            write_json(path, result)
        elif result is not None and options.memory and not result["settings"]["memory"]:
            result = add_memory(result, comparison, torch.device(device), threads)
            write_json(path, result)
        if result is not None:
            print(summary(name, result), flush=True)
    write_table(folder)


if __name__ == "__main__":
    names = f"Comparisons: {', '.join(COMPARISONS)}.\n\nContestants: {', '.join(CONTESTANTS)}."
    tyro.cli(main, description=f"{__doc__}\n{names}")
