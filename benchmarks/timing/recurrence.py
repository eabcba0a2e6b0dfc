"""The recurrence alone: forward and backward of one layer, torch's own against ours, without emission or optimiser."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from torch import Tensor, nn

from noisin_pyro import NoisyRNN, Spread
from timing.shapes import Shape


class TorchLayer:
    """``nn.RNN`` or ``nn.LSTM``."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        kind = {"tanh": nn.RNN, "lstm": nn.LSTM}[shape.cell]
        self.rnn: Any = kind(shape.units, shape.units, shape.layers, batch_first=True)
        self.rnn.to(device, shape.dtype)
        size = (shape.batch, shape.window, shape.units)
        self.x = torch.randn(size, device=device, dtype=shape.dtype, requires_grad=True)
        self.gradient = torch.randn(size, device=device, dtype=shape.dtype)  # of a loss in the last layer's output

    def forward(self) -> Tensor:
        return self.rnn(self.x)[0]

    def step(self) -> None:
        """Forward and backward, down to the gradient of the inputs, as an embedding needs it."""
        self.x.grad = None
        self.rnn.zero_grad()
        self.forward().backward(self.gradient)


class NoisyLayer(TorchLayer):
    """``NoisyRNN`` with the same inputs, in the plate that it needs."""

    def __init__(
        self,
        shape: Shape,
        device: torch.device,
        spread: float,
        family: str = "gaussian",
        learn_spread: bool = False,
        engine: str = "auto",
    ) -> None:
        super().__init__(shape, device)
        gamma = Spread(spread, learn=learn_spread)
        self.rnn = NoisyRNN(shape.units, shape.units, shape.layers, shape.cell, family, gamma, engine=engine)
        self.rnn.to(device, shape.dtype)

    def forward(self) -> Tensor:
        with pyro.plate("sequences", len(self.x), dim=-1):
            return self.rnn(self.x)[0]
