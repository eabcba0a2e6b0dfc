"""A comparison, measured: from its entries to what is written."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from noisin_pyro.training.provenance import provenance
from noisin_pyro.training.run import program_settings
from timing import memory, ratios
from timing.comparisons import Comparison, Entry, Target
from timing.contestants import PARTS, SOFTMAX, build
from timing.floor import Machine, floor, measure, recurrence_floor, softmax_floor
from timing.rounds import Rounds, rounds
from timing.shapes import source, windows
from timing.torch_networks import CLIP, RATE


@dataclass(frozen=True)
class How:
    """How to measure."""

    rounds: int = 31
    """Undisturbed rounds, at most: in each every contestant has a turn."""

    least: int = 7
    """Rounds at least, whatever the time and the disturbance."""

    seconds: float = 150.0
    """No new round of a comparison begins after this time."""

    memory: bool = True
    """Measure peak memory too, of each contestant in a process of its own."""

    seed: int = 0
    """Seed of weights and noise, and of the ratios' intervals."""


def measured(comparison: Comparison, how: How, device: torch.device, threads: int) -> dict[str, Any]:
    """Times, ratios, floors and memory of every entry, with all that they depend on; and what became of the targets."""
    before = measure(device, threads)
    found = _rounds(comparison, how, device)
    times = found.seconds
    machine = Machine(*map(max, before, measure(device, threads)))
    entries = {}
    for name, entry in comparison.entries.items():
        entries[name] = _described(entry, machine) | {
            "steps_in_a_turn": found.steps[name],
            "milliseconds": {key: 1000 * value for key, value in ratios.quartiles(times[name])._asdict().items()},
            "rounds_milliseconds": [float(f"{1000 * value:.5g}") for value in times[name]],
        }
        if how.memory:
            entries[name] |= memory.taken(entry.contestant, entry.shape, device, threads)._asdict()
        if entry.base in times:
            entries[name]["ratio"] = ratios.ratio(times[name], times[entry.base], how.seed)._asdict()
    wanted = [target for target in comparison.targets if {target.of, target.to} <= times.keys()]
    return {
        "title": comparison.title,
        "seed": how.seed,
        **provenance(device),
        "processor": processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "machine": machine._asdict(),
        "busy_elsewhere": found.elsewhere,
        "disturbed_rounds": found.disturbed,
        "settings": dataclasses.asdict(how)
        | {
            "optimizer": "Adam, fused",
            "learning_rate": RATE,
            "clip": CLIP,
            "allocator": memory.allocator(),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
        },
        "entries": entries,
        "targets": [outcome for target in wanted if (outcome := _outcome(target, times, entries, how))],
    }


def remembered(told: dict[str, Any], comparison: Comparison, device: torch.device, threads: int) -> dict[str, Any]:
    """What was measured without memory, with it."""
    how = How(**{field.name: told["settings"][field.name] for field in dataclasses.fields(How)} | {"memory": True})
    for name, entry in comparison.entries.items():
        if "peak_bytes" not in told["entries"][name]:
            told["entries"][name] |= memory.taken(entry.contestant, entry.shape, device, threads)._asdict()
    wanted = [target for target in comparison.targets if target.measure == "memory"]
    outcomes = [_outcome(target, {}, told["entries"], how) for target in wanted]
    timed = [target for target in told["targets"] if target["measure"] == "time"]
    return told | {"settings": told["settings"] | {"memory": True}, "targets": timed + outcomes}


def _rounds(comparison: Comparison, how: How, device: torch.device) -> Rounds:
    with program_settings():
        data = {entry.shape: windows(entry.shape, device) for entry in comparison.entries.values()}
        built = {
            name: build(entry.contestant, entry.shape, data[entry.shape], device, how.seed)
            for name, entry in comparison.entries.items()
        }
        steps = {name: each.step for name, each in built.items()}
        return rounds(steps, how.rounds, how.least, how.seconds)


def _described(entry: Entry, machine: Machine) -> dict[str, Any]:
    """An entry before it is measured, with its floor."""
    bfloat16 = entry.contestant.endswith("bfloat16")
    if entry.contestant in SOFTMAX:
        least = softmax_floor(entry.shape, machine, bfloat16)
    elif entry.contestant in PARTS:
        least = recurrence_floor(entry.shape, machine)
    else:
        least = floor(entry.shape, machine, bfloat16)
    return {
        "contestant": entry.contestant,
        "shape": dataclasses.asdict(entry.shape),
        "data": "random" if entry.contestant in PARTS else source(entry.shape),
        "base": entry.base,
        "floor_milliseconds": {key: 1000 * value for key, value in least.items()},
    }


def _outcome(target: Target, times: Mapping[str, list[float]], entries: Mapping[str, Any], how: How) -> dict[str, Any]:
    """A target and what was found; nothing where memory was not measured."""
    if target.measure == "time":
        found = ratios.ratio(times[target.of], times[target.to], how.seed)._asdict()
    elif how.memory:
        found = {"median": entries[target.of]["peak_bytes"] / entries[target.to]["peak_bytes"]}
    else:
        return {}
    met = None if target.limit is None else found["median"] <= target.limit
    return dataclasses.asdict(target) | {"found": found, "met": met}


def processor() -> str:
    """The CPU's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())
