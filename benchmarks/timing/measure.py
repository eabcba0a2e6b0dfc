"""Measure a comparison: from its entries to the content of its JSON file."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from noisin_pyro.training.provenance import provenance
from noisin_pyro.training.run import program_settings
from timing.baselines import CLIP, LEARNING_RATE
from timing.comparisons import Comparison, Target
from timing.contestants import TRAINING, build
from timing.interleaved import Rounds, paired_ratio, quartiles, time_in_turns
from timing.memory import allocator_settings, measure_memory
from timing.roofline import Machine, measure_machine, roofline
from timing.shapes import data_source, windows


@dataclass(frozen=True)
class MeasureOptions:
    """How each comparison is measured."""

    max_rounds: int = 31
    """Maximum number of rounds; in a round each contestant is timed once."""

    min_rounds: int = 7
    """Minimum number of rounds, whatever the time and the load of the machine."""

    seconds: float = 150.0
    """Time limit per comparison: no round starts after it, except to reach the minimum."""

    memory: bool = True
    """Also measure each contestant's peak memory, in a process of its own."""

    seed: int = 0
    """Random seed of weights, noise and bootstrap intervals."""


def measure(comparison: Comparison, options: MeasureOptions, device: torch.device, threads: int) -> dict[str, Any]:
    """Times, ratios, rooflines and memory of all entries, the targets, and all settings that these depend on."""
    before = measure_machine(device, threads)
    rounds = _time(comparison, options, device)
    machine = Machine(*map(max, before, measure_machine(device, threads)))
    targets = [target for target in comparison.targets if {target.of, target.to} <= rounds.seconds.keys()]
    result = {
        "title": comparison.title,
        "seed": options.seed,
        **provenance(device),
        "processor": processor_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "machine": machine._asdict(),
        "others_share": rounds.others,
        "discarded_rounds": rounds.discarded,
        "settings": dataclasses.asdict(options)
        | {
            "memory": False,
            "optimizer": "Adam, fused",
            "learning_rate": LEARNING_RATE,
            "clip": CLIP,
            "allocator": allocator_settings(),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
        },
        "entries": {
            name: _entry(name, comparison, rounds, machine, options.seed) for name in comparison.entries
        },
        "targets": [
            _with_outcome(target, paired_ratio(*_times(target, rounds.seconds), options.seed)._asdict())
            for target in targets
            if target.measure == "time"
        ],
    }  # fmt: skip
    return add_memory(result, comparison, device, threads) if options.memory else result


def add_memory(result: dict[str, Any], comparison: Comparison, device: torch.device, threads: int) -> dict[str, Any]:
    """Add the memory of every entry that was measured without it."""
    entries = dict(result["entries"])
    for name, entry in comparison.entries.items():
        if name in entries and "peak_bytes" not in entries[name]:
            entries[name] |= measure_memory(entry.contestant, entry.shape, device, threads)._asdict()
    peaks = {name: entry["peak_bytes"] for name, entry in entries.items() if "peak_bytes" in entry}
    targets = [
        _with_outcome(target, {"median": peaks[target.of] / peaks[target.to]})
        for target in comparison.targets
        if target.measure == "memory" and {target.of, target.to} <= peaks.keys()
    ]
    timed = [target for target in result["targets"] if target["measure"] == "time"]
    settings = result["settings"] | {"memory": True}
    return result | {"settings": settings, "entries": entries, "targets": timed + targets}


def _time(comparison: Comparison, options: MeasureOptions, device: torch.device) -> Rounds:
    with program_settings():
        data = {entry.shape: windows(entry.shape, device) for entry in comparison.entries.values()}
        steps = {
            name: build(entry.contestant, entry.shape, data[entry.shape], device, options.seed).step
            for name, entry in comparison.entries.items()
        }
        return time_in_turns(steps, options.max_rounds, options.min_rounds, options.seconds)


def _entry(name: str, comparison: Comparison, rounds: Rounds, machine: Machine, seed: int) -> dict[str, Any]:
    entry, times = comparison.entries[name], rounds.seconds[name]
    bound = roofline(entry.contestant, entry.shape, machine)
    content = {
        "contestant": entry.contestant,
        "shape": dataclasses.asdict(entry.shape),
        "data": data_source(entry.shape) if entry.contestant in TRAINING else "random",
        "base": entry.base,
        "noise_free": entry.noise_free,
        "roofline_milliseconds": {key: 1000 * value for key, value in bound.items()},
        "calls_per_turn": rounds.calls[name],
        "milliseconds": {key: 1000 * value for key, value in quartiles(times)._asdict().items()},
        "rounds_milliseconds": [float(f"{1000 * value:.5g}") for value in times],
    }
    for key, other in (("ratio", entry.base), ("ratio_to_noise_free", entry.noise_free)):
        if other in rounds.seconds:
            content[key] = paired_ratio(times, rounds.seconds[other], seed)._asdict()
    return content


def _times(target: Target, seconds: Mapping[str, Sequence[float]]) -> tuple[Sequence[float], Sequence[float]]:
    return seconds[target.of], seconds[target.to]


def _with_outcome(target: Target, ratio: dict[str, float]) -> dict[str, Any]:
    met = None if target.limit is None else ratio["median"] <= target.limit
    return dataclasses.asdict(target) | {"ratio": ratio, "met": met}


def processor_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())
