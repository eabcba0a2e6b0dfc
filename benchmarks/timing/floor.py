"""What no implementation can be faster than: a step's products at this machine's rate, its traffic at its bandwidth."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional as F
from torch.utils.benchmark import Timer

from timing.shapes import Shape

FLOAT = 4  # bytes


class Machine(NamedTuple):
    """Operations a second in large products, of float32 and of bfloat16 numbers; bytes a second in a large copy."""

    float32: float
    bfloat16: float
    bandwidth: float


def measure(device: torch.device, threads: int) -> Machine:
    """The best of several, in a few seconds."""
    size, copied = (8192, 2**28) if device.type == "cuda" else (1536, 2**26)
    a, b = torch.randn(2, size, size, device=device).unbind()
    ways = {"float32": [(a, b)], "bfloat16": [(a.bfloat16(), b.bfloat16())]}
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        ways["float32"].append((a.to_mkldnn(), b.to_mkldnn()))  # on some processors over twice as fast as torch.mm
    rates = [
        max(2 * size**3 / _best("linear(a, b)", {"linear": F.linear, "a": a, "b": b}, threads) for a, b in pairs)
        for pairs in ways.values()
    ]
    source, target = (torch.zeros(copied, device=device) for _ in range(2))
    seconds = _best("target.copy_(source)", {"source": source, "target": target}, threads)
    return Machine(*rates, 2 * FLOAT * copied / seconds)


def _best(statement: str, names: dict[str, object], threads: int) -> float:
    timer = Timer(statement, globals=names, num_threads=threads)
    return min(timer.timeit(2).mean for _ in range(10))


def recurrence_operations(shape: Shape) -> int:
    """Multiplications and additions of the layers' products, forward and backward (each product has two gradients)."""
    gates = {"tanh": 1, "lstm": 4}[shape.cell] * shape.units
    width = shape.outputs if shape.is_music else shape.units
    first = gates * width  # the same for all particles; a piano roll needs no gradient
    upper = gates * shape.units * (2 * shape.layers - 1) * shape.particles
    return shape.steps * ((4 if shape.is_music else 6) * first + 6 * upper)


def emission_operations(shape: Shape) -> int:
    return 6 * shape.steps * shape.particles * shape.units * shape.outputs


def parameters(shape: Shape) -> int:
    """Numbers that are trained."""
    gates = {"tanh": 1, "lstm": 4}[shape.cell] * shape.units
    width = shape.outputs if shape.is_music else shape.units
    layers = gates * (width + (shape.layers - 1) * shape.units + shape.layers * (shape.units + 2))
    embedding = 0 if shape.is_music else shape.outputs * shape.units
    return layers + embedding + shape.outputs * (shape.units + 1)


def floor(shape: Shape, machine: Machine, bfloat16: bool = False) -> dict[str, float]:
    """Seconds of a training step's products, and of its optimiser's traffic: Adam reads the weight, its gradient and
    two moments, and writes all but the gradient, which backward writes. All else, the logits too, might stay in caches.
    """
    rate = machine.bfloat16 if bfloat16 else machine.float32
    products = (recurrence_operations(shape) + emission_operations(shape)) / rate
    return {"products": products, "traffic": 8 * FLOAT * parameters(shape) / machine.bandwidth}


def softmax_floor(shape: Shape, machine: Machine, bfloat16: bool = False) -> dict[str, float]:
    """Of the softmax alone, forward and backward."""
    return {
        "products": emission_operations(shape) / (machine.bfloat16 if bfloat16 else machine.float32),
        "traffic": 0.0,
    }


def recurrence_floor(shape: Shape, machine: Machine) -> dict[str, float]:
    """Of the layers alone, forward and backward."""
    return {"products": recurrence_operations(shape) / machine.float32, "traffic": 0.0}
