"""What a guide knows of x at each step: all of it so far, or all of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from noisin_pyro.models import SequenceModel


class Encoder(nn.Module):
    """A GRU over inputs and targets, forward or in both directions, the second within each sequence's length.

    Args:
        model: gives the widths of inputs and targets.
        hidden_size: units of each direction, and of an embedding of classes.
        both_ways: whether step t knows x_{1:T}, or x_{1:t} alone.
    """

    def __init__(self, model: SequenceModel, hidden_size: int, both_ways: bool) -> None:
        super().__init__()
        emission = model.emission
        self.embedding = nn.Embedding(emission.output_size, hidden_size) if emission.event_dim == 0 else None
        targets = emission.output_size if self.embedding is None else hidden_size
        width = model.rnn.input_size + targets
        self.forward_in_time = nn.GRU(width, hidden_size, batch_first=True)
        self.backward_in_time = nn.GRU(width, hidden_size, batch_first=True) if both_ways else None
        self.output_size = targets + hidden_size * (1 + both_ways)

    def forward(self, inputs: Tensor, targets: Tensor, lengths: Tensor | None) -> Tensor:
        """What is known at each step, ``(..., B, T, output_size)``: x_t itself, and the GRUs' states.

        Args:
            inputs: as the first layer reads them, ``(..., B, T, I)``.
            targets: x_{1:T}, ``(..., B, T)`` classes or ``(..., B, T, D)``.
            lengths: ``(B,)``, or None for T everywhere.
        """
        x = targets.to(inputs) if self.embedding is None else self.embedding(targets)
        shape = torch.broadcast_shapes(inputs.shape[:-1], x.shape[:-1])
        inputs, x = inputs.expand(*shape, -1), x.expand(*shape, -1)
        seen = torch.cat([inputs, x], -1)
        known = [x, _along(self.forward_in_time, seen)]
        if self.backward_in_time is not None:
            known.append(_turned(_along(self.backward_in_time, _turned(seen, lengths)), lengths))
        return torch.cat(known, -1)


def _along(gru: nn.GRU, x: Tensor) -> Tensor:
    return gru(x.reshape(-1, *x.shape[-2:]))[0].unflatten(0, x.shape[:-2])


def _turned(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Each sequence's real steps in reverse order, ``(..., B, T, F)``; its padding stays where it is."""
    if lengths is None:
        return x.flip(-2)
    steps = torch.arange(x.shape[-2], device=x.device)
    last = lengths.to(x.device).unsqueeze(-1) - 1
    index = torch.where(steps <= last, last - steps, steps)
    return x.gather(-2, index.unsqueeze(-1).expand(x.shape))
