"""Matrix products of float32 numbers, by default as they are, on request rounded to bfloat16.

On CPUs they go to oneDNN: the BLAS behind ``torch.mm`` reaches half of what some processors can do in float32 (those of
AMD; ``docs/speed.md``), and packs a matrix anew in each of the many small products of a recurrence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from noisin_pyro.names import known

PRODUCTS = ("float32", "bfloat16")

LARGE = 2**20
"""Multiplications in a product from which oneDNN's advantage outweighs what each call of it costs."""


def has_bfloat16() -> bool:
    """Whether this machine can multiply bfloat16 numbers in hardware."""
    return torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def check_products(products: str) -> str:
    """The name itself.

    Raises:
        ValueError: another name, or bfloat16 where neither the CPU nor a GPU has it in hardware.
    """
    known("products", products, PRODUCTS)
    if products == "bfloat16" and not has_bfloat16():
        raise ValueError("products='bfloat16' needs a CPU with AVX-512 or AMX, or a GPU; leave them at 'float32'")
    return products


@contextmanager
def tf32(wanted: bool) -> Iterator[None]:
    """Within, GPUs round the factors of float32 products to TF32, if that is wanted; else as torch has been told."""
    settings: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.rnn)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    for setting in settings if wanted else ():
        setting.fp32_precision = "tf32"
    try:
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


def by_hand_works(device: torch.device) -> bool:
    """Whether operations with a gradient written by hand can be used: not within torch's autocast, which chooses the
    types of its own operations, and not within a transform of ``torch.func``, which would have to know them."""
    return not (torch.is_autocast_enabled(device.type) or torch._C._are_functorch_transforms_active())


def rounded(factor: Tensor, products: str) -> Tensor:
    """A factor of several products as they take it."""
    return factor.bfloat16() if products == "bfloat16" else factor


def product(a: Tensor, b: Tensor, bias: Tensor | None = None, products: str = "float32") -> Tensor:
    """a b (+ bias) of ``(N, K)``, ``(K, M)`` and ``(M,)``; no gradient passes.

    ``products="bfloat16"`` rounds the factors (which may have been beforehand: :func:`rounded`) and each element of the
    result to bfloat16; sums, and the type of the result, are float32.
    """
    if products == "bfloat16":
        found = torch.mm(rounded(a, products), rounded(b, products)).float()
        return found if bias is None else found.add_(bias)
    if _is_for_onednn(a) and len(a) * b.numel() >= LARGE:
        return torch.ops.mkldnn._linear_pointwise(a, b.mT, bias, "none", [], "")
    return torch.mm(a, b) if bias is None else torch.addmm(bias, a, b)


def summed_product(a: Tensor, b: Tensor, products: str = "float32") -> Tensor:
    """aᵀ b, ``(K, M)``, of ``(N, K)`` and ``(N, M)``: a weight's gradient, summed over N rows; no gradient passes."""
    if products == "bfloat16" or a.shape[1] <= b.shape[1]:  # float32 is rearranged first where it stands left
        return product(a.mT, b, None, products)
    return product(b.mT, a, None, products).mT


class Factor:
    """A matrix ``(K, M)`` that many small ``(rows, K)`` are multiplied by: rearranged once for all of them."""

    def __init__(self, matrix: Tensor, rows: int, products: str = "float32") -> None:
        self.is_rounded = products == "bfloat16"
        self.matrix = rounded(matrix, products)
        self.packed: Any = None
        if _is_for_onednn(matrix) and rows * matrix.numel() >= LARGE:
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.matrix.mT.contiguous(), rows)

    def times(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """x matrix (+ plus), ``(rows, M)``, of which only the product is rounded; no gradient passes."""
        if self.is_rounded:
            x = x.bfloat16()
            if self.packed is None:
                found = torch.mm(x, self.matrix).float()
            else:
                found = torch.ops.mkldnn._linear_pointwise(x, self.packed, None, "none", [], "").float()
            return found if plus is None else found.add_(plus)
        if self.packed is None:
            return torch.mm(x, self.matrix) if plus is None else torch.addmm(plus, x, self.matrix)
        if plus is None:
            return torch.ops.mkldnn._linear_pointwise(x, self.packed, None, "none", [], "")
        return torch.ops.mkldnn._linear_pointwise.binary(x, plus, self.packed, None, "add")


def fast_linear(x: Tensor, weight: Tensor, bias: Tensor, products: str = "float32") -> Tensor:
    """x ``(..., I)`` to ``(..., G)`` by one matrix ``(G, I)``, forward and backward by these products."""
    return _Linear.apply(x.reshape(-1, x.shape[-1]), weight, bias, products).unflatten(0, x.shape[:-1])  # type: ignore[union-attr]


def require_plain(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Refuse what products in bfloat16 are not made for.

    Raises:
        ValueError: numbers of another type than float32, or sampled weights.
    """
    if not x.dtype == weight.dtype == bias.dtype == torch.float32 or weight.dim() != 2 or bias.dim() != 1:
        got = f"{weight.dtype} of shape {tuple(weight.shape)}"
        raise ValueError(f"products='bfloat16' need one matrix of float32 weights, got {got}; use 'float32'")


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, products: str) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        ctx.products = products
        return product(x, weight.mT, bias, products)

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        by_x, by_weight, by_bias, _ = ctx.needs_input_grad
        if torch.is_grad_enabled():  # the gradient's gradient will be asked for
            return up @ weight, up.mT @ x, up.sum(0), None
        factor = rounded(up, ctx.products)
        return (
            product(factor, weight, None, ctx.products) if by_x else None,
            summed_product(factor, x, ctx.products) if by_weight else None,
            up.sum(0) if by_bias else None,
            None,
        )


def _is_for_onednn(x: Tensor) -> bool:
    return x.dtype == torch.float32 and x.device.type == "cpu" and torch._C._get_mkldnn_enabled()
