"""Parts of a training step, each forward and backward: the recurrent layers alone and the softmax alone."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noisin_pyro import NoisyRNN, Spread
from noisin_pyro.recurrence.cells import CELLS
from noisin_pyro.recurrence.matmul import PackedMatrix, matmul, weight_gradient
from noisin_pyro.recurrence.softmax import Softmax
from timing.shapes import Shape


class TorchLayers:
    """``nn.RNN`` or ``nn.LSTM``."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        self.rnn: Any = self.build(shape).to(device, shape.dtype)
        size = (shape.batch, shape.window, shape.units)
        self.x = torch.randn(size, device=device, dtype=shape.dtype, requires_grad=True)
        self.grad_output = torch.randn(size, device=device, dtype=shape.dtype)

    def build(self, shape: Shape) -> nn.Module:
        layers = {"tanh": nn.RNN, "lstm": nn.LSTM}[shape.cell]
        return layers(shape.units, shape.units, shape.layers, batch_first=True)

    def forward(self) -> Tensor:
        return self.rnn(self.x)[0]

    def step(self) -> None:
        """Forward and backward, including the gradient of the inputs, which an embedding needs."""
        self.x.grad = None
        self.rnn.zero_grad()
        self.forward().backward(self.grad_output)


class NoisyLayers(TorchLayers):
    """``NoisyRNN`` on the same inputs, with options of its own."""

    def __init__(
        self, shape: Shape, device: torch.device, spread: float, learn_spread: bool = False, **options: Any
    ) -> None:
        self.options: dict[str, Any] = options | {"spread": Spread(spread, learn=learn_spread)}
        super().__init__(shape, device)

    def build(self, shape: Shape) -> nn.Module:
        return NoisyRNN(shape.units, shape.units, shape.layers, shape.cell, **self.options)

    def forward(self) -> Tensor:
        with pyro.plate("sequences", len(self.x), dim=-1):
            return self.rnn(self.x)[0]


class LayerMatmuls:
    """The matrix products of one layer, forward and backward, without its other operations."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        gates = CELLS[shape.cell].gates * shape.units
        self.weight = torch.randn(gates, shape.units, device=device, dtype=shape.dtype)
        self.x = torch.randn(shape.window, shape.batch, shape.units, device=device, dtype=shape.dtype)
        self.a = torch.randn(shape.window, shape.batch, gates, device=device, dtype=shape.dtype)

    def step(self) -> None:
        rows, inputs, grad_a = self.x.shape[1], self.x.flatten(0, 1), self.a.flatten(0, 1)
        matmul(inputs, self.weight.mT)
        forward, backward = PackedMatrix(self.weight.mT, rows), PackedMatrix(self.weight, rows)
        for x_t, a_t in zip(self.x, self.a, strict=True):
            forward.matmul(x_t, a_t)
        for x_t, a_t in zip(self.x, self.a, strict=True):
            backward.matmul(a_t, x_t)
        matmul(grad_a, self.weight)
        for _ in ("W_ih", "W_hh"):
            weight_gradient(grad_a, inputs)


class TorchSoftmax:
    """log p(x_t | z_t) by ``nn.Linear`` and ``cross_entropy``."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        rows = shape.num_steps * shape.particles
        self.linear = nn.Linear(shape.units, shape.outputs, device=device, dtype=shape.dtype)
        self.z = torch.randn(rows, shape.units, device=device, dtype=shape.dtype, requires_grad=True)
        self.x = torch.randint(shape.outputs, (rows,), device=device)

    def loss(self) -> Tensor:
        return F.cross_entropy(self.linear(self.z), self.x)

    def step(self) -> None:
        """Forward and backward, including the gradient of the states."""
        self.z.grad = None
        self.linear.zero_grad()
        self.loss().backward()


class NoisinSoftmax(TorchSoftmax):
    """log p(x_t | z_t) by this library's ``Softmax``, in float32 or bfloat16 products."""

    def __init__(self, shape: Shape, device: torch.device, precision: str = "float32") -> None:
        super().__init__(shape, device)
        self.precision = precision

    def loss(self) -> Tensor:
        return -Softmax(self.z, self.linear.weight, self.linear.bias, self.precision).log_prob(self.x).mean()
