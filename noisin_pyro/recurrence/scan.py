"""The noisy recurrence and its gradient as one operation: one product and a few elementwise ones a step.

Autograd would note every operation of every step, and gather the weights' gradients step by step. Written by hand, they
are gathered in one product over all steps, buffers are written once, and noise costs one operation a step, whether it
is added (z_t = h_t + δ_t) or multiplies (z_t = h_t ⊙ r_t).

A mask m ``(R, H)``, the same at all steps, stands before the product: W_hh (m ⊙ z_{t-1}).

Shapes: T time, R rows (particles and sequences), H units, G = gates · H.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from noisin_pyro.models.cells import Cell
from noisin_pyro.models.steps_by_hand import STEPS, masked


class Noise(NamedTuple):
    """What is done to the means, ``(T, R, H)``: multiplied by ``factor``, or ``shift`` added, or nothing."""

    factor: Tensor | None = None
    shift: Tensor | None = None


def scan(
    cell: Cell,
    a: Tensor,
    hh: Tensor,
    bias: Tensor | None,
    z: Tensor,
    c: Tensor | None,
    noise: Noise,
    products: str = "float32",
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """z_{1:T} ``(T, R, H)`` and the last memory.

    Args:
        a: the inputs' projections with every bias, ``(T, R, G)``; for the GRU without those of W_hh.
        hh: W_hh, ``(G, H)``.
        bias: those, ``(G,)``; None for other cells.
        z, c: z_0 and c_0, ``(R, H)``.
        products: those with W_hh, forward and backward, as for :class:`NoisyRNN`.
        mask: m.
    """
    path, memory = _Scan.apply(cell, products, a, hh, bias, z, c, mask, *noise)  # type: ignore[misc]
    return path, memory if cell.has_memory else None


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cell: Cell, products: str, *given: Tensor | None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        ctx.cell, ctx.products = cell, products
        path, memory, kept = STEPS[cell.name].forward(products, *given)
        ctx.save_for_backward(*given, *kept)
        return path, memory

    @staticmethod
    def backward(ctx: Any, by_path: Tensor, by_memory: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        given, kept = ctx.saved_tensors[:8], ctx.saved_tensors[8:]
        wanted = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():  # the gradient's gradient will be asked for
            return None, None, *_differentiable(ctx.cell, given, wanted, by_path, by_memory)
        by_path = by_path.contiguous()
        return None, None, *STEPS[ctx.cell.name].backward(ctx.products, given, wanted, kept, by_path, by_memory)


def _differentiable(
    cell: Cell, given: tuple[Any, ...], wanted: tuple[bool, ...], by_path: Tensor, by_memory: Tensor
) -> list[Tensor | None]:
    """The same gradients, by operations that have a gradient themselves."""
    a, hh, bias, z, c, mask, factor, shift = given
    path = []
    for t, a_t in enumerate(a.unbind(0)):
        mean, c = cell.step(a_t, torch.nn.functional.linear(masked(z, mask), hh, bias), z, c)
        z = mean if factor is None else mean * factor[t]
        z = z if shift is None else z + shift[t]
        path.append(z)
    ends, ups = [torch.stack(path)], [by_path]
    if c is not None:
        ends, ups = [*ends, c], [*ups, by_memory]
    sources = [source for source, want in zip(given, wanted, strict=True) if want]
    found = iter(torch.autograd.grad(ends, sources, ups, create_graph=True, allow_unused=True))
    return [next(found) if want else None for want in wanted]
