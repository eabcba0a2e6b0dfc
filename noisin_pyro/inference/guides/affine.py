"""The affine map that turns noise drawn from its prior into a guide's, and the network that says which map."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Transform

COVARIANCES = ("diagonal", "full")


class Affine(NamedTuple):
    """u -> shift + L u in coordinates ``(..., d)``, with L lower triangular and of positive diagonal.

    Attributes:
        shift: ``(..., d)``.
        log_diagonal: of L, ``(..., d)``.
        below: what L has below its diagonal, row by row ``(..., d (d - 1) / 2)``; None for a diagonal L.
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
    """Move noise by an affine map of its coordinates.

    Args:
        noise: ε_0 ``(..., H)`` from its prior.
        space: coordinates to ε: :func:`noisin_pyro.noise.biject_to_support`.
        affine: the identity (all of its numbers 0) leaves the noise as it is.

    Returns:
        ε ``(..., H)`` and log |dε / dε_0| ``(...)``.
    """
    u_0: Any = space.inv(noise)
    u = affine(u_0)
    moved: Any = space(u)
    stretch = space.log_abs_det_jacobian(u, moved) - space.log_abs_det_jacobian(u_0, noise)
    return moved, stretch + affine.log_diagonal.sum(-1)


class Head(nn.Module):
    """The affine map of one layer's noise, from what is known of x and, along the path, of the states.

    One hidden layer of tanh units. Where the noise can be anywhere, the shift has a linear part too, as the exact
    posterior of a linear-Gaussian model has; elsewhere that could run away along the path, being exponentiated. All
    starts at 0, so that the guide starts at the prior.

    Args:
        context_size: numbers known of x at each step.
        state_size: numbers known of the states; 0 for none.
        hidden_size: units of the hidden layer.
        coordinates: d, of the noise.
        linear: whether the shift has a linear part.
        covariance: ``"diagonal"`` or ``"full"``.
    """

    def __init__(
        self, context_size: int, state_size: int, hidden_size: int, coordinates: int, linear: bool, covariance: str
    ) -> None:
        super().__init__()
        self.hidden_size, self.coordinates, self.is_full = hidden_size, coordinates, covariance == "full"
        outputs = 2 * coordinates + self.is_full * coordinates * (coordinates - 1) // 2
        width = hidden_size + linear * coordinates
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

    def forward(self, context: Tensor, states: Tensor | None, real: Tensor | None) -> Affine:
        """The map.

        Args:
            context: ``of_context`` of what is known of x, made for all steps at once.
            states: ``(..., state_size)``, or None.
            real: which steps are real, ``(...)``, or None for all; in padding the noise keeps its prior.
        """
        known = context if states is None or self.of_states is None else context + self.of_states(states)
        hidden, straight = known[..., : self.hidden_size], known[..., self.hidden_size :]
        numbers = self.of_hidden(torch.tanh(hidden))
        if real is not None:
            numbers, straight = numbers * real.unsqueeze(-1), straight * real.unsqueeze(-1)
        d = self.coordinates
        shift = numbers[..., :d] + straight if straight.shape[-1] else numbers[..., :d]
        return Affine(shift, numbers[..., d : 2 * d], numbers[..., 2 * d :] if self.is_full else None)
