"""p(x_t | z_t) = softmax(V z_t + b), without a copy of its scores.

They are by far the largest matrix of a step (700 × 10,000 numbers where z has 700 × 256). Here the log-probabilities
overwrite them, and the gradient those; and where they are more than ``BLOCK`` numbers they are made and used up block
by block, so that S particles need no S-fold memory.
"""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.nn import functional as F

from noisin_pyro.models.products import by_hand_works, fast_linear, product, require_plain, rounded, summed_product
from noisin_pyro.models.scan import linear

BLOCK = 2**23
"""Numbers in a block of scores: 32 MB of float32."""

PIECE = 2**19
"""Numbers that stay in a cache while they are worked on."""


class Softmax(dist.Categorical):
    """A categorical over V classes with scores V z + b, which are computed where they are asked for.

    Args:
        z: states, ``(..., H)``.
        weight, bias: ``(..., V, H)`` and ``(..., V)``.
        products: as for :class:`Emission`.
    """

    arg_constraints: ClassVar[dict[str, Any]] = dict.fromkeys(("z", "weight", "bias"), constraints.real_vector)  # type: ignore[override]

    def __init__(
        self, z: Tensor, weight: Tensor, bias: Tensor, products: str = "float32", validate_args: bool | None = None
    ) -> None:
        self.z, self.weight, self.bias, self.products = z, weight, bias, products
        if products == "bfloat16":
            require_plain(z, weight, bias)
        self._num_events = bias.shape[-1]
        self._is_plain = weight.dim() == 2 and bias.dim() == 1
        batch = z.shape[:-1] if self._is_plain else self.scores.shape[:-1]
        TorchDistribution.__init__(self, batch, validate_args=validate_args)

    @property
    def scores(self) -> Tensor:
        """V z + b, ``(..., V)``."""
        if self.products == "bfloat16":
            return fast_linear(self.z, self.weight, self.bias, self.products)
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
        return Softmax(z, self.weight, self.bias, self.products, validate_args=self._validate_args)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        y = value.expand(shape).reshape(-1).long()
        if not (self._is_plain and by_hand_works(self.z.device) and len(y)):
            scores = self.scores.expand(*shape, self._num_events).reshape(len(y), self._num_events)
            return -F.cross_entropy(scores, y, reduction="none").reshape(shape)
        z = self.z.expand(*shape, self.z.shape[-1]).reshape(-1, self.z.shape[-1])
        if not torch.is_grad_enabled():
            return _sweep(z, self.weight, self.bias, y, self.products)[0].reshape(shape)
        found: Any = _LogProb.apply(z, self.weight, self.bias, y, self.products)
        return found.reshape(shape)


class _LogProb(torch.autograd.Function):
    """log softmax(z Vᵀ + b)[y] of each row, from z ``(N, H)``, V ``(V, H)``, b ``(V,)``, y ``(N,)``.

    One block of scores is kept for the gradient. Of several each gives its part of the gradient as it goes by, as if
    all rows counted alike in the loss, which they do but where some are masked or weighted: those are gone through
    again.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, z: Tensor, weight: Tensor, bias: Tensor, y: Tensor, products: str
    ) -> Tensor:
        ctx.save_for_backward(z, weight, bias, y)
        ctx.products, ctx.kept, ctx.at_once = products, None, None
        wanted = ctx.needs_input_grad[:3]
        if not any(wanted):
            return _sweep(z, weight, bias, y, products)[0]
        if len(z) > _rows(z, bias):
            found, ctx.at_once = _sweep(z, weight, bias, y, products, torch.ones_like(z[:, 0]), wanted)
            return found
        ctx.kept = _log_softmax(z, weight, bias, products)
        return _at(ctx.kept, y)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        z, weight, bias, y = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        kept, at_once, ctx.kept, ctx.at_once = ctx.kept, ctx.at_once, None, None  # both are overwritten: once only
        if torch.is_grad_enabled():  # the gradient's gradient will be asked for
            return *_differentiable(z, weight, bias, y, upstream, wanted), None, None
        if kept is not None:
            return *_gradients(kept, z, weight, y, ctx.products, upstream, wanted), None, None
        if at_once is not None and bool((upstream == upstream[0]).all()):
            return *(part if part is None else part.mul_(upstream[0]) for part in at_once), None, None
        return *_sweep(z, weight, bias, y, ctx.products, upstream, wanted)[1], None, None


Wanted = tuple[bool, bool, bool]
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def _rows(z: Tensor, bias: Tensor) -> int:
    """How many rows a block has; on a GPU all, where memory is the lesser worry."""
    return len(z) if z.is_cuda else max(1, BLOCK // len(bias))


def _sweep(
    z: Tensor,
    weight: Tensor,
    bias: Tensor,
    y: Tensor,
    products: str,
    upstream: Tensor | None = None,
    wanted: Wanted = (False, False, False),
) -> tuple[Tensor, Gradients]:
    """Log-probabilities ``(N,)``, block by block, and the gradients of their sum weighted by ``upstream``."""
    rows, found, by_z, weight = _rows(z, bias), [], [], rounded(weight, products)
    by_weight, by_bias = None, None
    for start in range(0, len(z), rows):
        block = slice(start, start + rows)
        log_p = _log_softmax(z[block], weight, bias, products)
        found.append(_at(log_p, y[block]))
        if upstream is not None:
            parts = _gradients(log_p, z[block], weight, y[block], products, upstream[block], wanted)
            by_z.append(parts[0])
            by_weight, by_bias = _plus(by_weight, parts[1]), _plus(by_bias, parts[2])
        del log_p  # before the next block comes
    return torch.cat(found), (torch.cat(by_z) if wanted[0] else None, by_weight, by_bias)


def _plus(total: Tensor | None, part: Tensor | None) -> Tensor | None:
    return part if total is None or part is None else total.add_(part)


def _log_softmax(z: Tensor, weight: Tensor, bias: Tensor, products: str) -> Tensor:
    scores = product(z, weight.mT, bias, products)
    for piece in _pieces(scores):
        torch.ops.aten._log_softmax.out(piece, -1, False, out=piece)
    return scores


def _at(log_p: Tensor, y: Tensor) -> Tensor:
    return log_p.gather(-1, y.unsqueeze(-1)).squeeze(-1)


def _gradients(
    log_p: Tensor, z: Tensor, weight: Tensor, y: Tensor, products: str, upstream: Tensor, wanted: Wanted
) -> Gradients:
    """By z, V and b, of Σ_n upstream_n log p_n[y_n]; ``log_p`` is overwritten by the gradient by the scores."""
    by_bias = torch.zeros_like(log_p[0]) if wanted[2] else None
    rows = len(next(iter(_pieces(log_p))))
    for piece, y_piece, up in zip(_pieces(log_p), y.split(rows), upstream.split(rows), strict=True):
        up = up.unsqueeze(-1)
        piece.exp_().mul_(-up).scatter_add_(-1, y_piece.unsqueeze(-1), up)
        if by_bias is not None:
            by_bias += piece.sum(0)
    factor = rounded(log_p, products)
    by_z = product(factor, weight, None, products) if wanted[0] else None
    by_weight = summed_product(factor, z, products) if wanted[1] else None
    return by_z, by_weight, by_bias


def _pieces(scores: Tensor) -> tuple[Tensor, ...]:
    return (scores,) if scores.is_cuda else scores.split(max(1, PIECE // scores.shape[-1]))


def _differentiable(
    z: Tensor, weight: Tensor, bias: Tensor, y: Tensor, upstream: Tensor, wanted: Wanted
) -> list[Tensor | None]:
    """The same gradients, by operations that have a gradient themselves."""
    log_p = -F.cross_entropy(F.linear(z, weight, bias), y, reduction="none")
    sources = [source for source, want in zip((z, weight, bias), wanted, strict=True) if want]
    found = iter(torch.autograd.grad(log_p, sources, upstream, create_graph=True))
    return [next(found) if want else None for want in wanted]
