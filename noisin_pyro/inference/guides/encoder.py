"""The encoder of a guide: features of x_{1:t} or of x_{1:T} at each step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from noisin_pyro.models import SequenceModel


class Encoder(nn.Module):
    """A GRU over inputs and targets, forward or bidirectional. The backward GRU starts at the last real step.

    Args:
        model: determines the sizes of inputs and targets.
        hidden_size: number of units of each direction, and size of the embedding if targets are classes.
        bidirectional: whether the features of step t depend on x_{1:T}, or on x_{1:t} only.
    """

    def __init__(self, model: SequenceModel, hidden_size: int, bidirectional: bool) -> None:
        super().__init__()
        emission = model.emission
        self.embedding = nn.Embedding(emission.output_size, hidden_size) if emission.event_dim == 0 else None
        targets = emission.output_size if self.embedding is None else hidden_size
        width = model.rnn.input_size + targets
        self.forward_in_time = nn.GRU(width, hidden_size, batch_first=True)
        self.backward_in_time = nn.GRU(width, hidden_size, batch_first=True) if bidirectional else None
        self.output_size = targets + hidden_size * (1 + bidirectional)

    def forward(self, inputs: Tensor, targets: Tensor, lengths: Tensor | None, mask: Tensor | None = None) -> Tensor:
        """The features of each step, ``(..., B, T, output_size)``: x_t itself and the GRUs' states.

        Args:
            inputs: inputs of the first layer, ``(..., B, T, I)``.
            targets: x_{1:T}, classes ``(..., B, T)`` or values ``(..., B, T, D)``.
            lengths: lengths of the sequences ``(B,)``, or None if all are T.
            mask: False where a target is missing or padding, ``(..., B, T)``; the features there are 0, whatever the
                target.
        """
        if mask is not None:
            mask = mask.to(targets.device)
            if self.embedding is not None:
                targets = targets.where(mask, 0)  # missing ones may be no class at all
        x = targets.to(inputs) if self.embedding is None else self.embedding(targets)
        x = x if mask is None else x.where(mask.unsqueeze(-1), 0.0)
        shape = torch.broadcast_shapes(inputs.shape[:-1], x.shape[:-1])
        inputs, x = inputs.expand(*shape, -1), x.expand(*shape, -1)
        gru_inputs = torch.cat([inputs, x], -1)
        features = [x, _run(self.forward_in_time, gru_inputs)]
        if self.backward_in_time is not None:
            backward = _run(self.backward_in_time, _reversed(gru_inputs, lengths))
            features.append(_reversed(backward, lengths))
        return torch.cat(features, -1)


def _run(gru: nn.GRU, x: Tensor) -> Tensor:
    return gru(x.reshape(-1, *x.shape[-2:]))[0].unflatten(0, x.shape[:-2])


def _reversed(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse the real steps of each sequence ``(..., B, T, F)``; padded steps stay in place."""
    if lengths is None:
        return x.flip(-2)
    steps = torch.arange(x.shape[-2], device=x.device)
    last = lengths.to(x.device).unsqueeze(-1) - 1
    index = torch.where(steps <= last, last - steps, steps)
    return x.gather(-2, index.unsqueeze(-1).expand(x.shape))
