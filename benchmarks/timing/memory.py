"""What a contestant takes of memory, in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import resource
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from noisin_pyro.data import Batch
from noisin_pyro.training.run import program_settings
from timing.contestants import build
from timing.shapes import Shape, windows

TINY = {"units": 4, "batch": 2, "window": 2, "outputs": 8}
WARM, STEPS = 3, 3


class Memory(NamedTuple):
    """What was found.

    Attributes:
        peak_bytes: above what the process had after a step of a tiny one: weights, gradients, moments and what steps
            hold. On a CPU the resident pages, which hold the kernels' own buffers too; on a GPU what torch's allocator
            gave out.
        page_faults: of a step, once warm. An allocator that gives pages back to the system, as glibc's does with large
            blocks, pays for each again.
    """

    peak_bytes: int
    page_faults: float


def taken(name: str, shape: Shape, device: torch.device, threads: int) -> Memory:
    """Run a contestant for a few steps in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_taken, name, shape, device, threads).result()


def _taken(name: str, shape: Shape, device: torch.device, threads: int) -> Memory:
    torch.set_num_threads(threads)
    tiny = Shape(cell=shape.cell, data=shape.data, **TINY)
    batches = {each: windows(each, device, "random", WARM + STEPS) for each in (tiny, shape)}
    with program_settings():
        _run(name, tiny, batches[tiny], device)  # imports come with the first step
        before = _highest(device)
        faults = _run(name, shape, batches[shape], device)
    return Memory(_highest(device) - before, faults)


def _run(name: str, shape: Shape, batches: list[Batch], device: torch.device) -> float:
    """Page faults a step, of the last steps."""
    contestant = build(name, shape, batches, device)
    for _ in range(WARM):
        contestant.step()
    before = _faults()
    for _ in range(STEPS):
        contestant.step()
    return (_faults() - before) / STEPS


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def allocator() -> dict[str, str]:
    """What the environment says of the allocator on a CPU."""
    prefixes = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "THP_MEM_ALLOC")
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


def _highest(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # not getrusage: a process inherits its parent's ru_maxrss
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])
