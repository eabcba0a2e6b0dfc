"""What the scans of all cells share: their arguments, the noise, and the gradients with the same equation for each.

Notation: time t = 1..T, rows (particles and sequences) R, units H, G = gates · H. x̄ is ∂L/∂x; ⊙ is elementwise.

All cells share the noise and the mask (paper, section 3: z_t is drawn around the cell's mean h_t):

    z_t = h_t                       without noise
    z_t = h_t + δ_t                 additive:        h̄_t = z̄_t,        δ̄_t = z̄_t
    z_t = h_t ⊙ r_t                 multiplicative:  h̄_t = z̄_t ⊙ r_t,  r̄_t = z̄_t ⊙ h_t
    p_t = W_hh (m ⊙ z_{t-1})        the state's projection, m = 1 without dropout

and so, with z̄_t summed over every path from z_t to the loss (the output at t, then the next step's projection):

    z̄_{t-1} = (∂L/∂z_{t-1} of the output) + m ⊙ (W_hhᵀ p̄_t)   (+ the cell's own paths)
    W̄_hh = Σ_t p̄_t (m ⊙ z_{t-1})ᵀ                             m̄ = Σ_t (W_hhᵀ p̄_t) ⊙ z_{t-1}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from noisin_pyro.recurrence.matmul import PackedMatrix, matmul, weight_gradient

T = TypeVar("T")


class ScanArguments(NamedTuple, Generic[T]):
    """The tensors that a scan reads; also which of them need a gradient, and their gradients.

    Attributes:
        a: the inputs' projections, ``(T, R, G)``, with every bias that can be added beforehand.
        weight_hh: W_hh, ``(G, H)``.
        bias_hh: b_hh, ``(G,)``, of a cell with ``separate_bias_hh``; else None.
        z_0, c_0: the states before the first step, ``(R, H)``; c_0 is None without a memory.
        mask: m, ``(R, H)``, or None.
        factor, shift: r and δ, ``(T, R, H)``; at most one of them is not None.
    """

    a: T
    weight_hh: T
    bias_hh: T
    z_0: T
    c_0: T
    mask: T
    factor: T
    shift: T

    @property
    def is_noisy(self) -> bool:
        return self.factor is not None or self.shift is not None


Inputs = ScanArguments[Any]
NeedsGrad = ScanArguments[bool]
Gradients = ScanArguments[Tensor | None]
Saved = tuple[Tensor, ...]


class ScanCell(ABC):
    """One cell's steps along a sequence.

    Attributes:
        separate_bias_hh: whether b_hh can't be added to the inputs' projection (the GRU gates W_hh z + b_hh).
    """

    separate_bias_hh: bool = False

    @abstractmethod
    def forward(self, precision: str, args: Inputs) -> tuple[Tensor, Tensor, Saved]:
        """z_{1:T} ``(T, R, H)``, c_T (empty without a memory), and what ``backward`` needs."""

    @abstractmethod
    def backward(
        self, precision: str, args: Inputs, needs_grad: NeedsGrad, saved: Saved, grad_z: Tensor, grad_c: Tensor
    ) -> Gradients:
        """The gradient of each argument, from those of z_{1:T} (contiguous) and c_T."""


def masked(z: Tensor, mask: Tensor | None) -> Tensor:
    """m ⊙ z."""
    return z if mask is None else z * mask


def add_noise(h: Tensor, factor: Tensor | None, shift: Tensor | None, out: Tensor) -> Tensor:
    """z_t from h_t, into ``out``; without noise ``h`` already is the buffer of z_t."""
    if factor is not None:
        return torch.mul(h, factor, out=out)
    return h if shift is None else torch.add(h, shift, out=out)


def unbind(path: Tensor | None, steps: int) -> list[Any]:
    return [None] * steps if path is None else list(path.unbind(0))


def grad_state(weight_hh: PackedMatrix, grad_p: Tensor, mask: Tensor | None, plus: Tensor) -> Tensor:
    """z̄ = plus + m ⊙ (W_hhᵀ p̄): back along p = W_hh (m ⊙ z)."""
    # W_hhᵀ p̄ of a row is p̄ W_hh: the packed matrix is W_hh itself here, and W_hhᵀ in forward.
    if mask is None:
        return weight_hh.matmul(grad_p, plus)  # the sum is fused into the product
    return torch.addcmul(plus, weight_hh.matmul(grad_p), mask)


def shared_gradients(
    precision: str,
    args: Inputs,
    needs_grad: NeedsGrad,
    z: Tensor,
    h: Tensor,
    grad_p: Tensor,
    grad_z_steps: list[Tensor],
) -> Gradients:
    """The gradients that have the same equation for every cell, and ā_t = p̄_t.

    W̄_hh = Σ_t p̄_t (m ⊙ z_{t-1})ᵀ and m̄ = Σ_t (W_hhᵀ p̄_t) ⊙ z_{t-1} take one product each for all steps.
    """
    # Time and rows as one dimension: the sum over t is the product's own.
    flat, z_before = grad_p.flatten(0, 1), z[:-1]
    grad_mask = None
    if needs_grad.mask:
        grad_mask = (matmul(flat, args.weight_hh, None, precision).view_as(z_before) * z_before).sum(0)
    return ScanArguments(
        a=grad_p,
        weight_hh=weight_gradient(flat, masked(z_before, args.mask).flatten(0, 1), precision),
        bias_hh=None,
        z_0=None,
        c_0=None,
        mask=grad_mask,
        factor=torch.stack(grad_z_steps) * h if needs_grad.factor else None,
        shift=torch.stack(grad_z_steps) if needs_grad.shift else None,
    )


def grad_start(precision: str, args: Inputs, needs_grad: NeedsGrad, grad_p_1: Tensor) -> Tensor | None:
    """z̄_0 = m ⊙ (W_hhᵀ p̄_1), of cells whose state enters through W_hh alone."""
    if not needs_grad.z_0:  # as a rule: a window's first state is detached
        return None
    return masked(matmul(grad_p_1, args.weight_hh, None, precision), args.mask)
