"""Matrix products in float32, or on request with operands rounded to bfloat16.

On CPUs, large float32 products go to oneDNN. The BLAS behind ``torch.mm`` reaches half of what some processors can do
in float32 (those of AMD; ``docs/speed.md``), and repacks a matrix in each of the many small products of a recurrence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from noisin_pyro._lookup import known

MATMUL_PRECISIONS = ("float32", "bfloat16")

MIN_ONEDNN_SIZE = 2**20 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else 2**25
"""Multiplications in a product from which oneDNN's advantage outweighs the overhead of each call. Without AVX-512 the
BLAS is as fast, except in the largest products."""

# These operators and flags are private to torch. Without the operators, products go to the BLAS; where functorch's
# state is unknown, we assume that a transform is active, and autograd does what is otherwise explicit.
_HAS_ONEDNN = torch.backends.mkldnn.is_available() and all(
    hasattr(torch.ops.mkldnn, name) for name in ("_linear_pointwise", "_reorder_linear_weight")
)
_functorch_is_active = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)
_OWN_TYPES = (Tensor, torch.nn.Parameter)
is_tracing = torch.jit.is_tracing  # type: ignore[attr-defined]


def _forward_mode_level() -> int:
    return getattr(torch.autograd.forward_ad, "_current_level", -1)  # -1 outside; private


class _NeedsGrad(NamedTuple):
    """``ctx.needs_input_grad`` of :class:`_Linear`."""

    x: bool
    weight: bool
    bias: bool
    precision: bool


def has_bfloat16() -> bool:
    """Whether this machine can multiply bfloat16 numbers in hardware."""
    return torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def check_matmul_precision(precision: str) -> str:
    """Return the name of a precision.

    Raises:
        ValueError: for an unknown name, or for bfloat16 if neither the CPU nor a GPU has it in hardware.
    """
    known("matmul_precision", precision, MATMUL_PRECISIONS)
    if precision == "bfloat16" and not has_bfloat16():
        raise ValueError("matmul_precision='bfloat16' needs a CPU with AVX-512 or AMX, or a GPU; use 'float32'")
    return precision


def check_bfloat16_operands(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Check that ``matmul_precision="bfloat16"`` supports these operands.

    Raises:
        ValueError: for a dtype other than float32, or for sampled weights.
    """
    if not x.dtype == weight.dtype == bias.dtype == torch.float32 or weight.dim() != 2 or bias.dim() != 1:
        got = f"{weight.dtype} of shape {tuple(weight.shape)}"
        raise ValueError(f"matmul_precision='bfloat16' needs one matrix of float32 weights, got {got}; use 'float32'")


@contextmanager
def tf32(enabled: bool) -> Iterator[None]:
    """A context in which GPUs round the operands of float32 products to TF32; without effect if not ``enabled``."""
    settings: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn.rnn)  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    for setting in settings if enabled else ():
        setting.fp32_precision = "tf32"
    try:
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


def needs_torch_operations(*operands: Tensor | None) -> bool:
    """Whether these operands restrict a computation to torch's elementary operations.

    Transforms (``torch.func``, forward-mode differentiation, ``torch.compile``), tensor subclasses (Pyro's provenance,
    the fake tensors of ``torch.export``) and the meta device know those alone: neither fused kernels nor operations
    with hand-written gradients.
    """
    if torch.compiler.is_compiling() or _functorch_is_active() or _forward_mode_level() >= 0:
        return True
    return any(x is not None and (type(x) not in _OWN_TYPES or x.is_meta) for x in operands)


def custom_gradients_work(device: torch.device) -> bool:
    """Whether operations with hand-written gradients can be used on plain tensors.

    They can't inside torch's autocast, which chooses the dtype of each of its own operations, nor inside
    ``torch.jit.trace``, which records the operations within them, but not their gradients.
    """
    return not (torch.is_autocast_enabled(device.type) or is_tracing())


def rounded(operand: Tensor, precision: str) -> Tensor:
    """Round the operand of several products once."""
    return operand.bfloat16() if precision == "bfloat16" else operand


def matmul(a: Tensor, b: Tensor, bias: Tensor | None = None, precision: str = "float32") -> Tensor:
    """a b (+ bias) of ``(N, K)``, ``(K, M)`` and ``(M,)``; not differentiable.

    ``precision="bfloat16"`` rounds the operands (which may already be: :func:`rounded`) and each element of a b to
    bfloat16. Sums are accumulated, the bias is added and the result is returned in float32.
    """
    if precision == "bfloat16":
        result = torch.mm(rounded(a, precision), rounded(b, precision)).float()
        return result if bias is None else result.add_(bias)
    # A small product costs less than a call of oneDNN, so it stays with the BLAS.
    if _uses_onednn(a) and len(a) * b.numel() >= MIN_ONEDNN_SIZE:
        return torch.ops.mkldnn._linear_pointwise(a, b.mT, bias, "none", [], "")
    return torch.mm(a, b) if bias is None else torch.addmm(bias, a, b)


def weight_gradient(grad: Tensor, x: Tensor, precision: str = "float32") -> Tensor:
    """gradᵀ x, ``(G, I)``, of ``(N, G)`` and ``(N, I)``: the gradient of W in x Wᵀ, summed over N rows; not
    differentiable."""
    # In float32 the left operand gets rearranged first, so the smaller of the two stands there.
    if precision == "bfloat16" or grad.shape[1] <= x.shape[1]:
        return matmul(grad.mT, x, None, precision)
    return matmul(x.mT, grad, None, precision).mT


class PackedMatrix:
    """A matrix ``(K, M)`` that many small ``(rows, K)`` are multiplied by: packed for oneDNN once for all of them."""

    def __init__(self, matrix: Tensor, rows: int, precision: str = "float32") -> None:
        self.is_rounded = precision == "bfloat16"
        self.matrix = rounded(matrix, precision)
        self.packed: Any = None
        if _uses_onednn(matrix) and rows * matrix.numel() >= MIN_ONEDNN_SIZE:
            # oneDNN chooses the layout for this number of rows.
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.matrix.mT.contiguous(), rows)

    def matmul(self, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """x matrix (+ plus), ``(rows, M)``; only the product is rounded; not differentiable."""
        if self.is_rounded:
            # Accumulated in float32, rounded to bfloat16, and back; ``plus`` is added after that, unrounded.
            x = x.bfloat16()
            if self.packed is None:
                result = torch.mm(x, self.matrix).float()
            else:
                result = torch.ops.mkldnn._linear_pointwise(x, self.packed, None, "none", [], "").float()
            return result if plus is None else result.add_(plus)
        if self.packed is None:
            return torch.mm(x, self.matrix) if plus is None else torch.addmm(plus, x, self.matrix)
        if plus is None:
            return torch.ops.mkldnn._linear_pointwise(x, self.packed, None, "none", [], "")
        # The sum is fused into the product: one call a step, and no second pass over the result.
        return torch.ops.mkldnn._linear_pointwise.binary(x, plus, self.packed, None, "add")


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x ``(..., T, I)`` to ``(..., T, G)`` with weights ``(..., G, I)`` and biases ``(..., G)``, sampled ones too."""
    if weight.dim() == 2 and bias.dim() == 1:  # one matrix: one product, however many dimensions x has
        return F.linear(x, weight, bias)
    return x @ weight.mT + bias.unsqueeze(-2)


def fast_linear(x: Tensor, weight: Tensor, bias: Tensor, precision: str = "float32") -> Tensor:
    """x ``(..., I)`` to ``(..., G)`` with one matrix ``(G, I)``, forward and backward by :func:`matmul` where it can be
    used, otherwise by torch's own product, rounded alike."""
    if needs_torch_operations(x, weight, bias) or not custom_gradients_work(x.device):
        if precision == "bfloat16":
            return F.linear(x.bfloat16(), weight.bfloat16()).float() + bias
        return F.linear(x, weight, bias)
    return _Linear.apply(x.reshape(-1, x.shape[-1]), weight, bias, precision).unflatten(0, x.shape[:-1])  # type: ignore[union-attr]


class _Linear(torch.autograd.Function):
    """y = x Wᵀ + b. With ȳ = ∂L/∂y: x̄ = ȳ W; W̄ = ȳᵀ x; b̄ = Σ_n ȳ_n."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, precision: str) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        ctx.precision = precision
        return matmul(x, weight.mT, bias, precision)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        needs_grad = _NeedsGrad(*ctx.needs_input_grad)
        if torch.is_grad_enabled():  # create_graph=True: these products have to be differentiable themselves
            return grad_y @ weight, grad_y.mT @ x, grad_y.sum(0), None
        operand = rounded(grad_y, ctx.precision)  # once for both products; the bias's sum stays float32
        return (
            matmul(operand, weight, None, ctx.precision) if needs_grad.x else None,
            weight_gradient(operand, x, ctx.precision) if needs_grad.weight else None,
            grad_y.sum(0) if needs_grad.bias else None,
            None,
        )


def _uses_onednn(x: Tensor) -> bool:
    return _HAS_ONEDNN and x.dtype == torch.float32 and x.device.type == "cpu" and torch._C._get_mkldnn_enabled()
