"""Affine maps that transform noise from its prior, and the network that computes their parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Transform

COVARIANCES = ("diagonal", "full")


class Affine(NamedTuple):
    """The map u -> shift + L u of vectors ``(..., d)``, where L is lower triangular with a positive diagonal.

    Attributes:
        shift: ``(..., d)``.
        log_diagonal: logarithm of the diagonal of L, ``(..., d)``.
        below: entries of L below its diagonal, row by row, ``(..., d (d - 1) / 2)``; None if L is diagonal.
    """

    shift: Tensor
    log_diagonal: Tensor
    below: Tensor | None

    def __call__(self, u: Tensor) -> Tensor:
        moved = self.shift + self.log_diagonal.exp() * u
        if self.below is None:
            return moved
        d = u.shape[-1]
        rows, columns = torch.tril_indices(d, d, -1, device=u.device)
        lower = u.new_zeros(*self.below.shape[:-1], d, d)
        lower[..., rows, columns] = self.below
        return moved + (lower @ u.unsqueeze(-1)).squeeze(-1)


def push(noise: Tensor, space: Transform, affine: Affine) -> tuple[Tensor, Tensor]:
    """Transform noise by an affine map in the unconstrained space of its support.

    Args:
        noise: ε_0 ``(..., H)`` from its prior.
        space: map from unconstrained values to ε, as :func:`noisin_pyro.noise.biject_to_support` returns it.
        affine: map of unconstrained values. If all its parameters are 0, it is the identity.

    Returns:
        ε ``(..., H)`` and log |dε / dε_0| ``(...)``.
    """
    u_0: Any = space.inv(noise)
    u = affine(u_0)
    moved: Any = space(u)
    stretch = space.log_abs_det_jacobian(u, moved) - space.log_abs_det_jacobian(u_0, noise)
    return moved, stretch + affine.log_diagonal.sum(-1)


class Head(nn.Module):
    """A network that maps features of x and, optionally, states to the affine map of one layer's noise.

    It has one hidden layer of tanh units. If the support of the noise is unbounded, the shift also has a linear part,
    as in the exact posterior of a linear-Gaussian model. For other supports unconstrained values are exponentiated, so
    a linear part could diverge along the sequence. The output layer and the linear part start at 0, so that the guide
    starts at the prior.

    Args:
        context_size: number of features of x at each step.
        state_size: number of state features; 0 for none.
        hidden_size: number of units of the hidden layer.
        dim: d, the dimension of the noise's unconstrained space.
        linear: whether the shift has a linear part.
        covariance: ``"diagonal"`` or ``"full"``.
    """

    def __init__(
        self, context_size: int, state_size: int, hidden_size: int, dim: int, linear: bool, covariance: str
    ) -> None:
        super().__init__()
        self.hidden_size, self.dim, self.is_full = hidden_size, dim, covariance == "full"
        outputs = 2 * dim + self.is_full * dim * (dim - 1) // 2
        width = hidden_size + linear * dim
        self.of_context = nn.Linear(context_size, width)
        self.of_states = nn.Linear(state_size, width, bias=False) if state_size else None
        self.of_hidden = nn.Linear(hidden_size, outputs)
        with torch.no_grad():
            for first in (self.of_context, self.of_states):
                if first is not None:
                    first.weight[hidden_size:].zero_()
            self.of_context.bias[hidden_size:].zero_()
        nn.init.zeros_(self.of_hidden.weight)
        nn.init.zeros_(self.of_hidden.bias)

    @property
    def width(self) -> int:
        """Elements of the largest tensor for one row."""
        states = 0 if self.of_states is None else self.of_states.in_features
        matrix = self.dim**2 if self.is_full else 0
        return max(states, self.of_context.out_features, self.of_hidden.out_features, matrix)

    def forward(self, context: Tensor, states: Tensor | None, real: Tensor | None) -> Affine:
        """Compute the affine map.

        Args:
            context: features of x after ``of_context``, which is applied to all steps at once.
            states: ``(..., state_size)``, or None.
            real: which steps are real, ``(...)``, or None for all. At padded steps the map is the identity.
        """
        summed = context if states is None or self.of_states is None else context + self.of_states(states)
        hidden, linear = summed[..., : self.hidden_size], summed[..., self.hidden_size :]
        parameters = self.of_hidden(torch.tanh(hidden))
        if real is not None:
            parameters, linear = parameters * real.unsqueeze(-1), linear * real.unsqueeze(-1)
        d = self.dim
        shift = parameters[..., :d] + linear if linear.shape[-1] else parameters[..., :d]
        return Affine(shift, parameters[..., d : 2 * d], parameters[..., 2 * d :] if self.is_full else None)
