"""A lower bound of a step's time: its matrix products and memory traffic at the highest rates of this machine."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F
from torch.utils.benchmark import Timer

from timing.contestants import LAYERS, SOFTMAX
from timing.shapes import Shape

FLOAT = 4  # bytes


class Machine(NamedTuple):
    """Operations per second in large float32 and bfloat16 products; bytes per second in a large copy."""

    float32: float
    bfloat16: float
    bandwidth: float


def measure_machine(device: torch.device, threads: int) -> Machine:
    """The highest rates of several trials; takes a few seconds."""
    size, copied = (8192, 2**28) if device.type == "cuda" else (1536, 2**26)
    a, b = torch.randn(2, size, size, device=device).unbind()
    pairs = {"float32": [(a, b)], "bfloat16": [(a.bfloat16(), b.bfloat16())]}
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        pairs["float32"].append((a.to_mkldnn(), b.to_mkldnn()))  # on some processors twice as fast as torch.mm
    float32, bfloat16 = (
        max(2 * size**3 / _shortest("linear(a, b)", {"linear": F.linear, "a": a, "b": b}, threads) for a, b in each)
        for each in pairs.values()
    )
    source, target = (torch.zeros(copied, device=device) for _ in range(2))
    seconds = _shortest("target.copy_(source)", {"source": source, "target": target}, threads)
    return Machine(float32, bfloat16, 2 * FLOAT * copied / seconds)


def _shortest(statement: str, names: dict[str, object], threads: int) -> float:
    timed = Timer(statement, globals=names, num_threads=threads)
    return min(timed.timeit(2).mean for _ in range(10))


def recurrence_operations(shape: Shape) -> int:
    """Multiplications and additions in the layers' products, forward and backward (each product has two gradients)."""
    gates = {"tanh": 1, "lstm": 4}[shape.cell] * shape.units
    width = shape.outputs if shape.is_music else shape.units
    first = gates * width  # shared by all particles; a piano roll needs no gradient
    others = gates * shape.units * (2 * shape.layers - 1) * shape.particles
    return shape.num_steps * ((4 if shape.is_music else 6) * first + 6 * others)


def emission_operations(shape: Shape) -> int:
    """Multiplications and additions in the output layer's product, forward and backward."""
    return 6 * shape.num_steps * shape.particles * shape.units * shape.outputs


def num_parameters(shape: Shape) -> int:
    gates = {"tanh": 1, "lstm": 4}[shape.cell] * shape.units
    width = shape.outputs if shape.is_music else shape.units
    layers = gates * (width + (shape.layers - 1) * shape.units + shape.layers * (shape.units + 2))
    embedding = 0 if shape.is_music else shape.outputs * shape.units
    return layers + embedding + shape.outputs * (shape.units + 1)


def roofline(contestant: str, shape: Shape, machine: Machine) -> dict[str, float]:
    """Seconds of a contestant's matrix products and of its optimizer's memory traffic.

    Adam reads a weight, its gradient and two moments, and writes all of them but the gradient, which the backward pass
    writes. Everything else, even the logits, could stay in caches.
    """
    recurrence, emission = recurrence_operations(shape), emission_operations(shape)
    if contestant in SOFTMAX:
        operations, traffic = emission, 0
    elif contestant in LAYERS:
        operations, traffic = recurrence, 0
    else:
        operations, traffic = recurrence + emission, 8 * FLOAT * num_parameters(shape)
    rate = machine.bfloat16 if contestant.endswith("bfloat16") else machine.float32
    return {"products": operations / rate, "traffic": traffic / machine.bandwidth}
