"""p(x_t | z_t): what is observed, given the last layer's state (paper, section 3, step 2 of the generative process)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from noisin_pyro.models.products import by_hand_works, check_products, fast_linear, require_plain
from noisin_pyro.models.scan import linear
from noisin_pyro.models.softmax import Softmax


class Emission(PyroModule):
    """A linear read-out of z, and the distribution that it parametrises.

    Args:
        hidden_size: units H of z.
        output_size: classes, or dimensions of x.
        products: ``"float32"`` (any type, in truth: as the numbers are), or ``"bfloat16"``: factors and results of the
            read-out's products are rounded to it, forward and backward, sums stay float32.
    """

    event_dim: int = 1

    def __init__(self, hidden_size: int, output_size: int, products: str = "float32") -> None:
        super().__init__()
        for argument, size in {"hidden_size": hidden_size, "output_size": output_size}.items():
            if size < 1:
                raise ValueError(f"{argument} must be a positive integer, got {size}")
        self.hidden_size, self.output_size = hidden_size, output_size
        self.products = check_products(products)
        self.linear = PyroModule[nn.Linear](hidden_size, output_size)  # type: ignore[call-arg]

    def read_out(self, z: Tensor) -> Tensor:
        """V z_t + b, ``(..., B, T, output_size)``, of sampled weights too."""
        weight, bias = self.linear.weight, self.linear.bias
        if is_rounded := self.products == "bfloat16":
            require_plain(z, weight, bias)
        if is_rounded or (weight.dim() == 2 and bias.dim() == 1 and by_hand_works(z.device)):
            return fast_linear(z, weight, bias, self.products)
        return linear(z, weight, bias)

    @abstractmethod
    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x_t | z_t) with batch shape ``(..., B, T)``, from z ``(..., B, T, H)``."""


class Categorical(Emission):
    """x_t one of ``output_size`` classes, p = softmax(V z_t)."""

    event_dim = 0

    def forward(self, z: Tensor) -> TorchDistribution:
        return Softmax(z, self.linear.weight, self.linear.bias, self.products)


class Bernoulli(Emission):
    """x_t a vector of independent bits (a chord of keys)."""

    def forward(self, z: Tensor) -> TorchDistribution:
        return dist.Bernoulli(logits=self.read_out(z)).to_event(1)


class Gaussian(Emission):
    """x_t a real vector with independent errors, their standard deviations learned (``scale``, from 1)."""

    scale: Any

    def __init__(self, hidden_size: int, output_size: int, products: str = "float32") -> None:
        super().__init__(hidden_size, output_size, products)
        self.scale = PyroParam(torch.ones(output_size), constraint=constraints.softplus_positive)

    def forward(self, z: Tensor) -> TorchDistribution:
        return dist.Normal(self.read_out(z), self.scale).to_event(1)


class Poisson(Emission):
    """x_t a vector of counts, with rates exp(V z_t)."""

    def forward(self, z: Tensor) -> TorchDistribution:
        return dist.Poisson(self.read_out(z).exp()).to_event(1)


EMISSIONS: dict[str, type[Emission]] = {
    "categorical": Categorical,
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
    "poisson": Poisson,
}
