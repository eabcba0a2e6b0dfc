"""Which backend computes a layer: a fused kernel, the scan with an explicit gradient, or the loop, the reference."""

from __future__ import annotations

import torch

from noisin_pyro._lookup import known
from noisin_pyro.noise import Family
from noisin_pyro.recurrence.cells import Cell
from noisin_pyro.recurrence.matmul import custom_gradients_work

BACKENDS = ("auto", "fused", "scan", "loop")

LSTM_SCAN_MIN_NUMEL = 16_000
"""Elements of one step's states from which a noisy LSTM's scan is faster than the fused kernel, whose noise costs a
third product."""


def choose_backend(
    backend: str,
    cell: Cell,
    family: Family | None,
    weights_are_shared: bool,
    device: torch.device,
    numel: int,
    matmul_precision: str = "float32",
    is_masked: bool = False,
) -> str:
    """``"fused"`` (``fused.py``), ``"scan"`` (``scan.py``) or ``"loop"`` (``transition.py``): the same numbers up to
    rounding.

    ``"auto"`` takes the fastest available: on a GPU the fused kernel before the scan, on a CPU the scan; there only an
    LSTM that is small or has no noise takes the kernel, oneDNN's (``docs/speed.md`` has the times). Products in
    bfloat16 exist in the scan alone, which therefore goes first on a CPU if they are asked for.

    Args:
        backend: what the user asked for, one of ``BACKENDS``.
        cell: the cell.
        family: the noise; None for a deterministic layer.
        weights_are_shared: whether one set of weights serves the whole batch.
        device: where the layer is computed.
        numel: elements of the states of one step, rows times units.
        matmul_precision: what the user asked for, ``"float32"`` or ``"bfloat16"``.
        is_masked: whether a mask multiplies the state before W_hh, which no fused kernel supports.

    Raises:
        ValueError: for an unknown backend, or one that cannot run this layer.
    """
    known("backend", backend, BACKENDS)
    available = _available(cell, family, weights_are_shared, device, is_masked)
    if backend == "auto":
        # Measured (docs/speed.md): oneDNN's LSTM fuses the gates of a step, which the scan computes one by one. With
        # noise it multiplies by W_hh twice, which outweighs that for large states.
        scan_is_slow = cell.has_memory and (family is None or numel < LSTM_SCAN_MIN_NUMEL)
        fused_first = device.type != "cpu" or (scan_is_slow and matmul_precision == "float32")
        order = ("fused", "scan", "loop") if fused_first else ("scan", "fused", "loop")
        return next(name for name in order if name in available)
    if backend not in available:
        noise = "no noise" if family is None else f"{family} noise"
        sampled = "" if weights_are_shared else " and weights that are sampled"
        dropout = " and dropout of its recurrence" if is_masked else ""
        context = "" if custom_gradients_work(device) else ", inside autocast or torch.jit.trace"
        raise ValueError(
            f"backend={backend!r} cannot run a {cell.name} cell with {noise}{sampled}{dropout}{context}, only "
            f"{', '.join(available)}; use one of these, or 'auto'"
        )
    return backend


def _available(
    cell: Cell, family: Family | None, weights_are_shared: bool, device: torch.device, is_masked: bool
) -> list[str]:
    """The backends that can run a layer, the fastest first as a rule."""
    backends = ["loop"]
    if not weights_are_shared:  # neither kernels nor the scan batch over weights
        return backends
    kernel = cell.fused_kernel
    # With noise: the state that W_hh multiplies has to be linear in ε, with coefficients that do not depend on it.
    takes_noise = family is None or (family.form == "additive" and kernel is not None and kernel.additive_noise)
    # Inside autocast the kernel stays in float32, while densities of its draws would use products in bfloat16.
    is_cast = family is not None and torch.is_autocast_enabled(device.type)
    if kernel is not None and takes_noise and not is_masked and not is_cast:
        backends.insert(0, "fused")
    # The scan adds γ ε or multiplies by 1 + γ ε. A family with a scale of its own does neither.
    is_affine = family is None or type(family).scale is Family.scale
    if cell.scan_cell is not None and is_affine and custom_gradients_work(device):
        backends.insert(0, "scan")
    return backends
