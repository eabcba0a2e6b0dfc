"""Which way a layer goes: torch's own kernels, the recurrence written by hand, or the loop that is the reference."""

from __future__ import annotations

import torch

from noisin_pyro.models.cells import Cell
from noisin_pyro.models.products import by_hand_works
from noisin_pyro.models.steps_by_hand import STEPS
from noisin_pyro.names import known
from noisin_pyro.noise import Family

ENGINES = ("auto", "kernel", "scan", "loop")


MANY = 16_000
"""Numbers in one step's states from which an LSTM's scan outruns the kernel, which makes a third product for noise."""


def chosen(
    engine: str,
    cell: Cell,
    family: Family | None,
    weights_are_shared: bool,
    device: torch.device,
    numbers: int,
    products: str = "float32",
    masked: bool = False,
) -> str:
    """The way: ``"kernel"`` (``kernels.py``), ``"scan"`` (``by_hand.py``) or ``"loop"`` (``scan.py``), all to the same
    numbers but for rounding.

    ``"auto"`` takes the fastest that there is: on a GPU the kernel before the scan, on a CPU the scan; but for an LSTM
    that is small or has no noise the kernel, which is oneDNN's (``docs/speed.md`` has the times). The scan alone can
    take products in bfloat16: where these are asked for, it goes first on a CPU.

    Args:
        engine: what was asked for, one of ``ENGINES``.
        family: the noise; None for a deterministic layer.
        weights_are_shared: whether one set of weights serves the whole batch.
        numbers: in the states of one step, rows times units.
        products: what was asked for, ``"float32"`` or ``"bfloat16"``.
        masked: whether a mask stands before the state's product, which no kernel has.

    Raises:
        ValueError: no such engine, or one that cannot run this layer.
    """
    known("engine", engine, ENGINES)
    ways = _ways(cell, family, weights_are_shared, device, masked)
    if engine == "auto":
        outruns = cell.has_memory and products == "float32" and (family is None or numbers < MANY)
        prefers_kernel = device.type != "cpu" or outruns
        order = ("kernel", "scan", "loop") if prefers_kernel else ("scan", "kernel", "loop")
        engine = next(way for way in order if way in ways)
    elif engine not in ways:
        noise = "no noise" if family is None else f"{family} noise"
        sampled = "" if weights_are_shared else " and weights that are sampled"
        dropout = " and dropout of its recurrence" if masked else ""
        raise ValueError(
            f"engine={engine!r} cannot run a {cell.name} cell with {noise}{sampled}{dropout}, only {', '.join(ways)}; "
            "take one of these, or 'auto'"
        )
    return engine


def _ways(cell: Cell, family: Family | None, weights_are_shared: bool, device: torch.device, masked: bool) -> list[str]:
    ways = ["loop"]
    if weights_are_shared:
        by_kernel = family is None or (family.form == "additive" and cell.reducible)
        if cell.kernel is not None and by_kernel and not masked:
            ways.insert(0, "kernel")
        by_scale = family is None or type(family).scale is Family.scale
        if by_hand_works(device) and by_scale and cell.name in STEPS and type(cell).__module__ == Cell.__module__:
            ways.insert(0, "scan")
    return ways
