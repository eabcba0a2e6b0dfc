"""Checks and normal forms of the arguments of layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from noisin_pyro._lookup import BatchError
from noisin_pyro.models.spread import Spread
from noisin_pyro.noise import Family
from noisin_pyro.recurrence.cells import Cell, Weights
from noisin_pyro.recurrence.matmul import is_tracing, needs_torch_operations

State = Tensor | tuple[Tensor, Tensor]
# Options of torch's layers that have no other value here: that value, and what to do instead.
OPTIONS_OF_TORCH = {
    "batch_first": (True, "the batch is always the first axis; transpose the inputs"),
    "bias": (True, "every layer has biases; set them to 0, with requires_grad=False"),
    "bidirectional": (False, "a state has no access to later inputs; use a second network on the reversed sequence"),
    "dropout": (0, 'use regularizer="variational-dropout" or a models.Dropout'),
    "nonlinearity": (None, 'use cell="tanh" or cell="relu"'),
    "proj_size": (0, "there are no projections"),
    "dtype": (None, "use .to(dtype)"),
    "device": (None, "use .to(device), or with torch.device(device)"),
}
AnySpread = float | Spread | Sequence[float | Spread] | np.ndarray | Tensor


def spread_per_layer(spread: AnySpread, num_layers: int, feedback: bool) -> Sequence[float | Spread]:
    """One spread for each layer, the lowest first."""
    if isinstance(spread, np.ndarray | Tensor) and not getattr(spread, "requires_grad", False):
        spread = spread.tolist()
    if isinstance(spread, (Real, Spread)):
        if feedback:
            return [spread] * num_layers
        return [*[0.0] * (num_layers - 1), spread]
    if not isinstance(spread, (list, tuple)) or len(spread) != num_layers:
        expected = f"a number, a Spread, or a list of {num_layers} of them (one a layer)"
        raise ValueError(f"spread must be {expected}, got {spread!r}; a learned γ is Spread(0.3, learn=True)")
    return spread


def layer_spread(
    layer: int, value: float | Spread, cell: Cell, family: Family, num_layers: int, units: int, feedback: bool
) -> Spread:
    """A layer's own copy of a spread around ``units`` means.

    Raises:
        ValueError: where the family cannot have that spread, or not at that layer.
    """
    spread = (value if isinstance(value, Spread) else Spread(value)).of_layer(layer)
    if spread.is_zero:
        return spread
    noise = f"{family.name}:{family.form}"
    if not feedback and layer < num_layers:
        raise ValueError(
            f"feedback=False puts noise on the output alone: the spread of {'the input' if layer == 0 else layer} "
            "must be 0; use feedback=True for noise below the last layer"
        )
    if spread.fixed is not None and spread.fixed <= family.min_spread:
        raise ValueError(
            f"spread must be above {family.min_spread:g} for {noise} noise, got {spread.fixed:g}; use 0, or the "
            "additive form"
        )
    spread.keep_below(family.max_spread)
    if spread.fixed is None and not family.spread_is_pathwise:
        raise ValueError(
            f"noise={noise!r} has its spread inside a discrete distribution, where it has no pathwise gradient; "
            "fix the spread (and choose it on a validation set), or use the additive form"
        )
    if family.has_innovations:
        with torch.device("cpu"):  # whatever the default is; on the meta device laws cannot be checked
            family.law(torch.ones(()), units)  # raises for a family that couples units, if there is only one
    if layer == 0 and family.form == "native":
        raise ValueError(
            f"noise={noise!r} needs a mean inside {family.mean_range}, and inputs can be anywhere; "
            "use input_spread=0, or the additive or multiplicative form"
        )
    if layer > 0 and not _fits(cell, family):
        ends = "[]" if cell.attains_range else "()"
        reached = f"{ends[0]}{cell.range[0]:g}, {cell.range[1]:g}{ends[1]}"
        raise ValueError(
            f"noise={noise!r} needs a mean inside {family.mean_range}, but the {cell.name} cell's state is in "
            f"{reached}; use the sigmoid cell, or the additive or multiplicative form"
        )
    return spread


def checked_name(name: Any) -> str:
    """Return the prefix of sample sites.

    Raises:
        ValueError: for an empty string, or none.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"name must be the prefix of the sample sites, such as 'z', got {name!r}")
    return name


def check_inputs(inputs: Tensor, lengths: Tensor | None, input_size: int) -> None:
    """Check that inputs are ``(..., B, T, input_size)`` and lengths ``(B,)`` from 0 to T.

    Raises:
        ValueError: where they are not.
    """
    if isinstance(inputs, PackedSequence):
        raise BatchError(
            "inputs must be a padded tensor, got a PackedSequence; use inputs, lengths = "
            "torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True), and call rnn(inputs, lengths=lengths)"
        )
    if not isinstance(inputs, Tensor):
        raise BatchError(f"inputs must be a tensor, got {type(inputs).__name__}; use torch.as_tensor(inputs)")
    if inputs.dim() < 2 or inputs.shape[-1] != input_size or inputs.shape[-2] < 1:
        expected = f"(..., batch, time, {input_size}) with at least one step"
        raise BatchError(f"inputs must have shape {expected}, got {tuple(inputs.shape)}")
    if not inputs.is_floating_point():
        raise BatchError(f"inputs must be floating-point, got {inputs.dtype}")
    if lengths is None:
        return
    steps, integers = inputs.shape[-2], (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    if not isinstance(lengths, Tensor) or lengths.dtype not in integers or lengths.shape != inputs.shape[-3:-2]:
        got = f"{lengths.dtype} {tuple(lengths.shape)}" if isinstance(lengths, Tensor) else repr(lengths)
        raise BatchError(f"lengths must be a tensor of integers, {tuple(inputs.shape[-3:-2])}, got {got}")
    # on a GPU the comparison would wait for it, and while a program is traced or transformed there are no values
    if lengths.device.type != "cpu" or is_tracing() or needs_torch_operations(lengths):
        return
    low, high = (int(end) for end in torch.aminmax(lengths)) if len(lengths) else (0, 0)
    if low < 0 or high > steps:
        raise BatchError(f"lengths must be from 0 to {steps}, got {low} to {high}")


def initial_states(
    inputs: Tensor, state: State | None, cell: Cell, num_layers: int, hidden_size: int
) -> list[tuple[Tensor, Tensor | None]]:
    """(z_0, c_0) of each layer, ``(..., B, H)``; zeros if ``state`` is None.

    Raises:
        ValueError: for a state of another shape.
    """
    if state is None:
        zeros = inputs.new_zeros(*inputs.shape[:-2], hidden_size)
        return [(zeros, zeros if cell.has_memory else None)] * num_layers
    parts = tuple(state) if isinstance(state, (tuple, list)) else (state,)
    if len(parts) != 1 + cell.has_memory:
        expected = "a pair (z, c)" if cell.has_memory else "one tensor"
        raise ValueError(f"state of a {cell.name} layer must be {expected}, got {len(parts)} tensors")
    inner = (*inputs.shape[-3:-2], hidden_size)
    for part in parts:
        if part.dim() <= len(inner) or part.shape[0] != num_layers or part.shape[-len(inner) :] != inner:
            expected = f"({num_layers}, ..., {', '.join(map(str, inner))}) (layers, ..., batch, units)"
            raise ValueError(f"state must have shape {expected}, got {tuple(part.shape)}")
    memories = parts[-1] if cell.has_memory else [None] * num_layers
    return list(zip(parts[0], memories, strict=True))


def check_dtypes(x: Tensor, weights: Weights, z: Tensor, c: Tensor | None) -> None:
    """Check that a layer's inputs and states have the dtype of its weights, as torch's layers do.

    Raises:
        ValueError: where they have not, except inside autocast, which converts them.
    """
    dtype = weights.ih.dtype
    if (x.dtype == z.dtype == dtype and (c is None or c.dtype == dtype)) or torch.is_autocast_enabled(x.device.type):
        return
    for name, tensor in {"inputs": x, "state": z, "state (memory)": c}.items():
        if tensor is not None and tensor.dtype != dtype:
            raise ValueError(
                f"{name} must have the dtype of the weights, {dtype}, got {tensor.dtype}; convert the tensor with "
                f".to({dtype}), or the layer with .to({tensor.dtype})"
            )


def _fits(cell: Cell, family: Family) -> bool:
    """Whether a cell's means stay in a family's range of means, an open interval."""
    (low, high), (lower, upper) = cell.range, family.mean_range
    inside = low >= lower and high <= upper
    reaches_end = cell.attains_range and (low == lower > -math.inf or high == upper < math.inf)
    return inside and not reaches_end
