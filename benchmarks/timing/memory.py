"""Peak memory and page faults of a contestant, measured in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import resource
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch

from noisin_pyro.data import Batch
from noisin_pyro.training.run import program_settings
from timing.contestants import build
from timing.shapes import Shape, windows

TINY: dict[str, Any] = {"units": 4, "batch": 2, "window": 2, "outputs": 8}
WARM_UP, STEPS = 3, 3


class Memory(NamedTuple):
    """Memory use of a training step.

    Attributes:
        peak_bytes: peak above that of a tiny step in the same process: weights, gradients, moments and what a step
            allocates. On a CPU these are resident pages, including buffers of the kernels; on a GPU what torch's
            allocator gave out.
        page_faults: per step after the warm-up. An allocator that returns large blocks to the system, as glibc's does,
            causes them again in every step.
    """

    peak_bytes: int
    page_faults: float


def measure_memory(name: str, shape: Shape, device: torch.device, threads: int) -> Memory:
    """Run a contestant for a few steps in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, name, shape, device, threads).result()


def _measure(name: str, shape: Shape, device: torch.device, threads: int) -> Memory:
    torch.set_num_threads(threads)
    tiny = Shape(cell=shape.cell, data=shape.data, **TINY)
    batches = {each: windows(each, device, "random", WARM_UP + STEPS) for each in (tiny, shape)}
    with program_settings():
        _run(name, tiny, batches[tiny], device)  # the first step imports modules
        before = peak(device)
        faults = _run(name, shape, batches[shape], device)
    return Memory(peak(device) - before, faults)


def _run(name: str, shape: Shape, batches: list[Batch], device: torch.device) -> float:
    """Page faults per step after the warm-up."""
    contestant = build(name, shape, batches, device)
    for _ in range(WARM_UP):
        contestant.step()
    before = _page_faults()
    for _ in range(STEPS):
        contestant.step()
    return (_page_faults() - before) / STEPS


def _page_faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def allocator_settings() -> dict[str, str]:
    """Environment variables that change the CPU's allocator."""
    prefixes = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD", "THP_MEM_ALLOC")
    return {name: value for name, value in os.environ.items() if name.startswith(prefixes)}


def peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # ru_maxrss of getrusage would include the parent's peak, which a process inherits.
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])
