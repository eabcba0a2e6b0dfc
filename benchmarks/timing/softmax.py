"""The softmax alone: log p(x_t | z_t) of a window and its gradient, torch's own against ours."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from noisin_pyro.recurrence.softmax import Softmax
from timing.shapes import Shape


class TorchSoftmax:
    """``nn.Linear`` and ``cross_entropy``."""

    def __init__(self, shape: Shape, device: torch.device) -> None:
        rows = shape.steps * shape.particles
        self.linear = nn.Linear(shape.units, shape.outputs, device=device, dtype=shape.dtype)
        self.z = torch.randn(rows, shape.units, device=device, dtype=shape.dtype, requires_grad=True)
        self.x = torch.randint(shape.outputs, (rows,), device=device)

    def loss(self) -> Tensor:
        return F.cross_entropy(self.linear(self.z), self.x)

    def step(self) -> None:
        """Forward and backward, down to the gradient of the states."""
        self.z.grad = None
        self.linear.zero_grad()
        self.loss().backward()


class OurSoftmax(TorchSoftmax):
    """:class:`Softmax`, with products of one kind or the other."""

    def __init__(self, shape: Shape, device: torch.device, products: str = "float32") -> None:
        super().__init__(shape, device)
        self.products = products

    def loss(self) -> Tensor:
        return -Softmax(self.z, self.linear.weight, self.linear.bias, self.products).log_prob(self.x).mean()
