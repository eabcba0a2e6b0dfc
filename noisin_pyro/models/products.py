"""Matrix products of float32 numbers, by default as they are, on request rounded to bfloat16 first."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from noisin_pyro.names import known

PRODUCTS = ("float32", "bfloat16")


def check_products(products: str) -> str:
    """The name itself.

    Raises:
        ValueError: another name, or bfloat16 where neither the CPU nor a GPU has it in hardware.
    """
    known("products", products, PRODUCTS)
    if products == "bfloat16" and not (torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        raise ValueError("products='bfloat16' needs a CPU with AVX-512 or AMX, or a GPU; leave them at 'float32'")
    return products


def bfloat16_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x ``(..., I)`` to ``(..., G)``, forward and backward with factors rounded to bfloat16, sums and results float32.

    Raises:
        ValueError: numbers of another type than float32, or sampled weights.
    """
    if not x.dtype == weight.dtype == bias.dtype == torch.float32 or weight.dim() != 2 or bias.dim() != 1:
        got = f"{weight.dtype} of shape {tuple(weight.shape)}"
        raise ValueError(f"products='bfloat16' need one matrix of float32 weights, got {got}; use 'float32'")
    return _Linear.apply(x.reshape(-1, x.shape[-1]), weight, bias).unflatten(0, x.shape[:-1])  # type: ignore[union-attr]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # type: ignore[override]
        x, weight = _rounded(x), _rounded(weight)
        ctx.save_for_backward(x, weight)
        return _product(x, weight.T).add_(bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        factor = _rounded(gradient)
        return _product(factor, weight), _product(factor.T, x), gradient.sum(0)


def _rounded(x: Tensor) -> Tensor:
    # On a CPU the fast kernels take float32, and round by themselves or, as they choose by size and processor, do not:
    # what is rounded beforehand gives the same numbers by either.
    return x.bfloat16() if x.is_cuda else x.bfloat16().float()


def _product(a: Tensor, b: Tensor) -> Tensor:
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        return torch.mm(a, b)
    finally:
        matmul.fp32_precision = before
