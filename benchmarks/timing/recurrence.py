"""The recurrence alone: forward and backward of one layer, torch's own against ours, without emission or optimiser."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from torch import Tensor, nn

from noisin_pyro import NoisyRNN, Spread
from noisin_pyro.recurrence.cells import CELLS
from noisin_pyro.recurrence.matmul import PackedMatrix, matmul, weight_gradient
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
        products: str = "float32",
    ) -> None:
        super().__init__(shape, device)
        gamma = Spread(spread, learn=learn_spread)
        sizes = (shape.units, shape.units, shape.layers)
        backend = "fused" if engine == "kernel" else engine
        self.rnn = NoisyRNN(*sizes, shape.cell, family, gamma, backend=backend, matmul_precision=products)
        self.rnn.to(device, shape.dtype)

    def forward(self) -> Tensor:
        with pyro.plate("sequences", len(self.x), dim=-1):
            return self.rnn(self.x)[0]


class Products:
    """The products of one layer by hand, forward and backward, and nothing else: what is left is ours to save."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        gates = CELLS[shape.cell].gates * shape.units
        self.weight = torch.randn(gates, shape.units, device=device, dtype=shape.dtype)
        self.x = torch.randn(shape.window, shape.batch, shape.units, device=device, dtype=shape.dtype)
        self.a = torch.randn(shape.window, shape.batch, gates, device=device, dtype=shape.dtype)

    def step(self) -> None:
        rows, inputs, by_a = self.x.shape[1], self.x.flatten(0, 1), self.a.flatten(0, 1)
        matmul(inputs, self.weight.mT)
        forward, backward = PackedMatrix(self.weight.mT, rows), PackedMatrix(self.weight, rows)
        for x_t, a_t in zip(self.x, self.a, strict=True):
            forward.matmul(x_t, a_t)
        for x_t, a_t in zip(self.x, self.a, strict=True):
            backward.matmul(a_t, x_t)
        matmul(by_a, self.weight)
        for _ in ("W_ih", "W_hh"):
            weight_gradient(by_a, inputs)
