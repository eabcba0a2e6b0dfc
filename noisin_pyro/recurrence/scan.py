"""The noisy recurrence and its gradient as one autograd operation: one product and a few elementwise ones a step.

Autograd would record every operation of every step, and accumulate the weights' gradients step by step. Here they are
gathered in one product over all steps, and buffers are written once. Noise costs one operation a step, whether it is
added (z_t = h_t + δ_t) or multiplies (z_t = h_t ⊙ r_t). The equations are in ``scan_cells.py``.

Shapes: T time, R rows (particles and sequences), H units, G = gates · H.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from noisin_pyro.recurrence.cells import Cell
from noisin_pyro.recurrence.scan_base import ScanArguments, masked


def scan(cell: Cell, args: ScanArguments[Any], matmul_precision: str = "float32") -> tuple[Tensor, Tensor | None]:
    """z_{1:T} ``(T, R, H)`` and the last memory, of a cell that has a ``scan_cell``.

    Args:
        cell: the cell.
        args: what it reads; its docstring gives shapes.
        matmul_precision: of the products with W_hh, forward and backward, as for :class:`NoisyRNN`.
    """
    path, memory = _Scan.apply(cell, matmul_precision, *args)  # type: ignore[misc]
    return path, memory if cell.has_memory else None  # an autograd function returns tensors only, here an empty one


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cell: Cell, precision: str, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        assert cell.scan_cell is not None
        ctx.cell, ctx.precision = cell, precision
        path, memory, saved = cell.scan_cell.forward(precision, ScanArguments(*tensors))
        # Not as attributes of ctx: so autograd frees them after backward, and refuses ones that were written to since.
        ctx.save_for_backward(*tensors, *saved)
        return path, memory

    @staticmethod
    def backward(ctx: Any, grad_path: Tensor, grad_memory: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        num_arguments = len(ScanArguments._fields)
        tensors = ctx.saved_tensors  # read once: activation checkpointing unpacks them, and refuses to do so again
        args, saved = ScanArguments(*tensors[:num_arguments]), tensors[num_arguments:]
        needs_grad = ScanArguments(*ctx.needs_input_grad[2:])  # cell and precision stand first
        if torch.is_grad_enabled():  # create_graph=True: the gradient has to be differentiable itself
            return None, None, *_differentiable_backward(ctx.cell, args, needs_grad, grad_path, grad_memory)
        # one contiguous copy, rather than strided reads at every step
        grads = ctx.cell.scan_cell.backward(ctx.precision, args, needs_grad, saved, grad_path.contiguous(), grad_memory)
        return None, None, *grads


def _differentiable_backward(
    cell: Cell, args: ScanArguments[Any], needs_grad: ScanArguments[bool], grad_path: Tensor, grad_memory: Tensor
) -> list[Tensor | None]:
    """The same gradients by autograd: the recurrence is run once more with operations that it records."""
    # Rerun rather than recorded in forward: gradients of gradients are rare, and recording would cost every step.
    z, c, path = args.z_0, args.c_0, []
    for t, a_t in enumerate(args.a.unbind(0)):
        p_t = torch.nn.functional.linear(masked(z, args.mask), args.weight_hh, args.bias_hh)
        mean, c = cell.step(a_t, p_t, z, c)
        z = mean if args.factor is None else mean * args.factor[t]
        z = z if args.shift is None else z + args.shift[t]
        path.append(z)
    outputs, grad_outputs = [torch.stack(path)], [grad_path]
    if c is not None:
        outputs, grad_outputs = [*outputs, c], [*grad_outputs, grad_memory]
    leaves = [tensor for tensor, needed in zip(args, needs_grad, strict=True) if needed]
    grads = iter(torch.autograd.grad(outputs, leaves, grad_outputs, create_graph=True, allow_unused=True))
    return [next(grads) if needed else None for needed in needs_grad]
