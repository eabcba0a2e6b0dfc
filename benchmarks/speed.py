"""Every comparison of speed: ``python benchmarks/speed.py`` writes ``results/speed/cpu/*.json`` and ``table.md`` there.

Contestants (``timing/contestants.py``) take turns in one process; each comparison ends with the ratios that we want. It
goes on where it was broken off: what has a JSON file is not run again. ``--device cuda`` does the same on a GPU.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from noisin_pyro.training.folder import provenance, write_json
from noisin_pyro.training.run import program_settings
from timing import floor, memory, ratios
from timing.comparisons import COMPARISONS, Comparison, selected
from timing.contestants import CONTESTANTS, LAYERS, build
from timing.report import summary, write_table
from timing.rounds import rounds
from timing.shapes import source, windows
from timing.torch_networks import CLIP, RATE

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class How:
    """How to measure.

    Attributes:
        rounds: turns of each contestant, at most.
        least: turns of each contestant, at least.
        seconds: no new round of a comparison begins after this time.
        memory: whether to measure peak memory, each contestant in a process of its own.
        seed: of weights and noise, and of the intervals.
    """

    rounds: int = 31
    least: int = 7
    seconds: float = 200.0
    memory: bool = True
    seed: int = 0


def run(comparison: Comparison, how: How, device: torch.device, threads: int) -> dict[str, Any]:
    """Everything that is measured of a comparison."""
    machine = floor.measure(device, threads)
    with program_settings():
        built = {
            name: build(contestant, shape, windows(shape, device), device, how.seed)
            for name, (contestant, shape) in comparison.entries.items()
        }
        times, sizes = rounds({name: each.step for name, each in built.items()}, how.rounds, how.least, how.seconds)
    del built
    entries = {}
    for name, (contestant, shape) in comparison.entries.items():
        least = (
            floor.recurrence_floor(shape, machine)
            if contestant in LAYERS
            else floor.floor(shape, machine, bfloat16=contestant.endswith("bfloat16"))
        )
        entries[name] = {
            "contestant": contestant,
            "shape": dataclasses.asdict(shape),
            "data": "random" if contestant in LAYERS else source(shape),
            "steps_in_a_turn": sizes[name],
            "milliseconds": {key: 1000 * value for key, value in ratios.quartiles(times[name])._asdict().items()},
            "floor_milliseconds": {key: 1000 * value for key, value in least.items()},
            "peak_bytes": memory.peak(contestant, shape, device, threads) if how.memory else None,
            "rounds_milliseconds": [float(f"{1000 * value:.5g}") for value in times[name]],
        }
        if comparison.base in times:
            entries[name]["ratio"] = ratios.ratio(times[name], times[comparison.base], how.seed)._asdict()
    targets = [dataclasses.asdict(target) for target in comparison.targets if {target.of, target.to} <= set(entries)]
    for target in targets:
        if target["measure"] == "time":
            found = ratios.ratio(times[target["of"]], times[target["to"]], how.seed)._asdict()
        elif how.memory:
            found = {"median": entries[target["of"]]["peak_bytes"] / entries[target["to"]]["peak_bytes"]}
        else:
            continue
        target.update(found=found, met=found["median"] <= target["limit"])
    return {
        "title": comparison.title,
        "seed": how.seed,
        **provenance(device),
        "processor": processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "machine": machine._asdict(),
        "settings": {
            **dataclasses.asdict(how),
            "optimizer": "Adam, fused",
            "learning_rate": RATE,
            "clip": CLIP,
            "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
            "matmul_precision": torch.get_float32_matmul_precision(),
        },
        "base": comparison.base,
        "entries": entries,
        "targets": targets,
    }


def processor() -> str:
    """The CPU's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())


def main(
    shapes: tuple[str, ...] = (),
    contestants: tuple[str, ...] = (),
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int = 2,
    again: bool = False,
    folder: Path | None = None,
    how: tyro.conf.OmitArgPrefixes[How] = How(),  # noqa: B008
) -> None:
    """Every comparison of speed.

    Args:
        shapes: comparisons by name, or by what their names begin with; all by default.
        contestants: some of them only; all by default.
        device: where to compute.
        threads: of the CPU.
        again: measure what has been measured too.
        folder: for the numbers; by default results/speed/DEVICE, of some contestants only runs/speed/DEVICE.
    """
    for name in contestants:
        if name not in CONTESTANTS:
            raise ValueError(f"contestants must be among {', '.join(CONTESTANTS)}, got {name!r}")
    names = selected(shapes)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of the processes that measure memory
    torch.set_num_threads(threads)
    folder = ROOT / ("runs" if contestants else "results") / "speed" / device if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        path = folder / f"{name}.json"
        if again or not path.exists():
            comparison = COMPARISONS[name]
            if contestants:
                kept = {key: entry for key, entry in comparison.entries.items() if entry[0] in contestants}
                comparison = dataclasses.replace(comparison, entries=kept)
            if comparison.entries:
                write_json(path, run(comparison, how, torch.device(device), threads))
        if path.exists():
            print(summary(name, json.loads(path.read_text(encoding="utf-8"))), flush=True)
    write_table(folder)


if __name__ == "__main__":
    tyro.cli(main)
