"""The most memory that a contestant takes, in a process of its own."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from noisin_pyro.data import Batch
from noisin_pyro.training.run import program_settings
from timing.contestants import build
from timing.shapes import Shape, windows

TINY = {"units": 4, "batch": 2, "window": 2, "outputs": 8}
STEPS = 3


def peak(name: str, shape: Shape, device: torch.device, threads: int) -> int:
    """Bytes above what the process had after a step of a tiny one: weights, gradients, moments and what steps hold.

    On a CPU the resident pages, which hold the kernels' own buffers too; on a GPU what torch's allocator gave out.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak, name, shape, device, threads).result()


def _peak(name: str, shape: Shape, device: torch.device, threads: int) -> int:
    torch.set_num_threads(threads)
    tiny = Shape(cell=shape.cell, data=shape.data, **TINY)
    batches = {each: windows(each, device, "random", STEPS) for each in (tiny, shape)}
    with program_settings():
        _run(name, tiny, batches[tiny], device)  # imports come with the first step
        before = _highest(device)
        _run(name, shape, batches[shape], device)
    return _highest(device) - before


def _run(name: str, shape: Shape, batches: list[Batch], device: torch.device) -> None:
    contestant = build(name, shape, batches, device)
    for _ in range(STEPS):
        contestant.step()


def _highest(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # not getrusage: a process inherits its parent's ru_maxrss
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(line.split()[1])
