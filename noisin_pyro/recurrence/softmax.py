"""p(x_t | z_t) = softmax(V z_t + b), without a second copy of the scores.

The scores are by far the largest matrix of a training step (700 × 10,000 where z is 700 × 256). Here the
log-probabilities overwrite the scores, and their gradient overwrites the log-probabilities. Scores of more than
``BLOCK_NUMEL`` elements are computed and used block by block, so that S particles need no S-fold memory.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.nn import functional as F

from noisin_pyro._lookup import BatchError
from noisin_pyro.recurrence.matmul import (
    check_bfloat16_operands,
    custom_gradients_work,
    fast_linear,
    linear,
    matmul,
    needs_torch_operations,
    rounded,
    weight_gradient,
)

BLOCK_NUMEL = 2**23
"""Elements in a block of scores: 32 MB of float32."""

CACHE_NUMEL = 2**19
"""Elements that stay in a CPU's cache between the elementwise operations on them."""


class Softmax(dist.Categorical):
    """A categorical over V classes with scores V z + b, which are computed when they are needed.

    Args:
        z: states, ``(..., H)``.
        weight, bias: ``(..., V, H)`` and ``(..., V)``.
        matmul_precision: ``"float32"`` or ``"bfloat16"``, as for :class:`Emission`.
    """

    arg_constraints: ClassVar[dict[str, Any]] = dict.fromkeys(("z", "weight", "bias"), constraints.real_vector)  # type: ignore[override]

    def __init__(
        self,
        z: Tensor,
        weight: Tensor,
        bias: Tensor,
        matmul_precision: str = "float32",
        validate_args: bool | None = None,
    ) -> None:
        self.z, self.weight, self.bias, self.matmul_precision = z, weight, bias, matmul_precision
        if matmul_precision == "bfloat16":
            check_bfloat16_operands(z, weight, bias)
        # Categorical's own constructor would compute and normalize the scores, so it is not called.
        self._num_events = bias.shape[-1]
        self._weights_are_shared = weight.dim() == 2 and bias.dim() == 1
        batch = z.shape[:-1] if self._weights_are_shared else self.scores.shape[:-1]
        TorchDistribution.__init__(self, batch, validate_args=validate_args)

    @property
    def scores(self) -> Tensor:
        """V z + b, ``(..., V)``."""
        if self.matmul_precision == "bfloat16":
            return fast_linear(self.z, self.weight, self.bias, self.matmul_precision)
        return linear(self.z, self.weight, self.bias)

    @property
    def _param(self) -> Tensor:  # type: ignore[override]
        return self.scores

    @property
    def logits(self) -> Tensor:  # type: ignore[override]
        return F.log_softmax(self.scores, -1)

    @property
    def probs(self) -> Tensor:  # type: ignore[override]
        return F.softmax(self.scores, -1)

    @property
    def param_shape(self) -> torch.Size:
        return torch.Size((*self.batch_shape, self._num_events))

    def expand(self, batch_shape: torch.Size, _instance: Softmax | None = None) -> Softmax:  # type: ignore[override]
        z = self.z.expand(*batch_shape, self.z.shape[-1])
        return Softmax(z, self.weight, self.bias, self.matmul_precision, validate_args=self._validate_args)

    def _validate_sample(self, value: Tensor) -> None:
        try:
            super()._validate_sample(value)
        except ValueError as error:
            raise BatchError(
                f"targets must be in the support, classes from 0 to {self._num_events - 1}, got {value.min().item():g} "
                f"to {value.max().item():g}; encode the text with the vocabulary of the model"
            ) from error

    def log_prob(self, value: Tensor) -> Tensor:
        return self.weighted_log_prob(value)

    def weighted_log_prob(self, value: Tensor, weights: Tensor | None = None) -> Tensor:
        """``weights * log_prob(value)``, where the weights are constants, 1 by default.

        The gradient of a sum of them is computed in forward, block by block.
        """
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        y = value.expand(shape).reshape(-1).long()
        # Sampled weights, autocast and transforms need autograd's operations; no rows need no kernel that expects some.
        is_plain = not needs_torch_operations(self.z, self.weight, self.bias, y) and custom_gradients_work(
            self.z.device
        )
        if not (is_plain and self._weights_are_shared and len(y)):
            scores = self.scores.expand(*shape, self._num_events).reshape(len(y), self._num_events)
            log_prob = -F.cross_entropy(scores, y, reduction="none").reshape(shape)
            return log_prob if weights is None else weights * log_prob
        z = self.z.expand(*shape, self.z.shape[-1]).reshape(-1, self.z.shape[-1])
        if not torch.is_grad_enabled():  # evaluation: no block is kept
            log_prob = _by_blocks(z, self.weight, self.bias, y, self.matmul_precision)[0].reshape(shape)
            return log_prob if weights is None else weights * log_prob
        weights = None if weights is None else weights.expand(shape).reshape(-1).to(z)
        product: Any = _LogProb.apply(z, self.weight, self.bias, y, self.matmul_precision, weights)
        return product.reshape(shape)


class _NeedsGrad(NamedTuple):
    z: bool = False
    weight: bool = False
    bias: bool = False


_NO_GRAD = _NeedsGrad()


class _Gradients(NamedTuple):
    z: Tensor | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None


class _LogProb(torch.autograd.Function):
    """w_n ℓ_n with ℓ_n = log softmax(s_n)[y_n] and scores s = z Vᵀ + b; z ``(N, H)``, V ``(V, H)``, b ``(V,)``, y and w
    ``(N,)``; w is 1 by default.

    With ℓ̄_n = ∂L/∂ℓ_n: s̄_nv = ℓ̄_n ([v = y_n] - softmax(s_n)_v); z̄ = s̄ V; V̄ = s̄ᵀ z; b̄ = Σ_n s̄_n.

    A single block's log-probabilities are kept for backward. Of several blocks, each gives its part of the gradients in
    forward, while its scores exist, as if every ℓ̄_n were w_n. Backward only rescales these if the gradients of all
    products are equal, which they are unless rows are masked or weighted later; then the blocks are computed once more.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, z: Tensor, weight: Tensor, bias: Tensor, y: Tensor, precision: str, row_weights: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(z, weight, bias, y)
        ctx.row_weights = row_weights
        ctx.precision, ctx.log_p, ctx.unit_gradients = precision, None, None
        needs_grad = _NeedsGrad(*ctx.needs_input_grad[:3])
        if not any(needs_grad):
            log_prob = _by_blocks(z, weight, bias, y, precision)[0]
        elif len(z) > _block_rows(z, bias):
            # The scores of all blocks are never in memory at once, so the gradient is taken while they exist.
            factors = torch.ones_like(z[:, 0]) if row_weights is None else row_weights
            log_prob, ctx.unit_gradients = _by_blocks(z, weight, bias, y, precision, factors, needs_grad)
        else:
            ctx.log_p = _log_softmax(z, weight, bias, precision)
            log_prob = _at(ctx.log_p, y)
        return log_prob if row_weights is None else log_prob * row_weights

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        z, weight, bias, y = ctx.saved_tensors
        needs_grad = _NeedsGrad(*ctx.needs_input_grad[:3])
        # Both are overwritten below, so a second backward (retain_graph=True) has to recompute them.
        log_p, unit_gradients, ctx.log_p, ctx.unit_gradients = ctx.log_p, ctx.unit_gradients, None, None
        if unit_gradients is not None and not torch.is_grad_enabled() and bool((grad == grad[0]).all()):
            return *(part if part is None else part.mul_(grad[0]) for part in unit_gradients), None, None, None
        grad = grad if ctx.row_weights is None else grad * ctx.row_weights
        if torch.is_grad_enabled():  # create_graph=True: the gradient has to be differentiable itself
            return *_differentiable_gradients(z, weight, bias, y, grad, needs_grad), None, None, None
        if log_p is not None:
            return *_gradients(log_p, z, weight, y, ctx.precision, grad, needs_grad), None, None, None
        return *_by_blocks(z, weight, bias, y, ctx.precision, grad, needs_grad)[1], None, None, None


def _block_rows(z: Tensor, bias: Tensor) -> int:
    """Rows of a block. On a GPU all of them: it has the memory, and the comparison in backward would synchronize."""
    return len(z) if z.is_cuda else max(1, BLOCK_NUMEL // len(bias))


def _by_blocks(
    z: Tensor,
    weight: Tensor,
    bias: Tensor,
    y: Tensor,
    precision: str,
    grad: Tensor | None = None,
    needs_grad: _NeedsGrad = _NO_GRAD,
) -> tuple[Tensor, _Gradients]:
    """Log-probabilities ``(N,)`` block by block, and the gradients of their sum weighted by ``grad``."""
    rows, log_probs, grad_z = _block_rows(z, bias), [], []
    weight = rounded(weight, precision)  # once for all blocks
    grad_weight, grad_bias = None, None
    for start in range(0, len(z), rows):
        block = slice(start, start + rows)
        log_p = _log_softmax(z[block], weight, bias, precision)
        log_probs.append(_at(log_p, y[block]))
        if grad is not None:
            parts = _gradients(log_p, z[block], weight, y[block], precision, grad[block], needs_grad)
            grad_z.append(parts.z)
            grad_weight, grad_bias = _accumulated(grad_weight, parts.weight), _accumulated(grad_bias, parts.bias)
        del log_p  # its memory is free before the next block is computed
    return torch.cat(log_probs), _Gradients(torch.cat(grad_z) if needs_grad.z else None, grad_weight, grad_bias)


def _accumulated(total: Tensor | None, part: Tensor | None) -> Tensor | None:
    return part if total is None or part is None else total.add_(part)


def _log_softmax(z: Tensor, weight: Tensor, bias: Tensor, precision: str) -> Tensor:
    """log softmax(z Vᵀ + b), ``(N, V)``, in the memory of the scores."""
    scores = matmul(z, weight.mT, bias, precision)
    for piece in _cache_pieces(scores):
        torch.ops.aten._log_softmax.out(piece, -1, False, out=piece)  # the public log_softmax can't write in place
    return scores


def _at(log_p: Tensor, y: Tensor) -> Tensor:
    return log_p.gather(-1, y.unsqueeze(-1)).squeeze(-1)


def _gradients(
    log_p: Tensor, z: Tensor, weight: Tensor, y: Tensor, precision: str, grad: Tensor, needs_grad: _NeedsGrad
) -> _Gradients:
    """z̄, V̄ and b̄ as in :class:`_LogProb`; ``log_p`` is overwritten by s̄."""
    # Elementwise passes over pieces that fit the cache: the scores are read from memory once, not once an operation.
    grad_bias = torch.zeros_like(log_p[0]) if needs_grad.bias else None
    rows = len(next(iter(_cache_pieces(log_p))))
    for piece, y_piece, grad_piece in zip(_cache_pieces(log_p), y.split(rows), grad.split(rows), strict=True):
        grad_piece = grad_piece.unsqueeze(-1)
        # s̄ = -ℓ̄ softmax(s), and + ℓ̄ at y
        piece.exp_().mul_(-grad_piece).scatter_add_(-1, y_piece.unsqueeze(-1), grad_piece)
        if grad_bias is not None:
            grad_bias += piece.sum(0)  # while the piece is in the cache
    operand = rounded(log_p, precision)  # once for both products
    return _Gradients(
        matmul(operand, weight, None, precision) if needs_grad.z else None,
        weight_gradient(operand, z, precision) if needs_grad.weight else None,
        grad_bias,
    )


def _cache_pieces(scores: Tensor) -> tuple[Tensor, ...]:
    """Rows that fit a CPU's cache together; on a GPU all at once."""
    return (scores,) if scores.is_cuda else scores.split(max(1, CACHE_NUMEL // scores.shape[-1]))


def _differentiable_gradients(
    z: Tensor, weight: Tensor, bias: Tensor, y: Tensor, grad: Tensor, needs_grad: _NeedsGrad
) -> list[Tensor | None]:
    """The same gradients by autograd, with operations that it records."""
    log_prob = -F.cross_entropy(F.linear(z, weight, bias), y, reduction="none")
    leaves = [tensor for tensor, needed in zip((z, weight, bias), needs_grad, strict=True) if needed]
    grads = iter(torch.autograd.grad(log_prob, leaves, grad, create_graph=True))
    return [next(grads) if needed else None for needed in needs_grad]
