"""p(x_t | z_t): what is observed, given the last layer's state (paper, section 3, step 2 of the generative process)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn
from torch.nn import functional as F

from noisin_pyro.models.products import bfloat16_linear, check_products
from noisin_pyro.models.scan import linear


class Emission(PyroModule):
    """A linear read-out of z, and the distribution that it parametrises.

    Args:
        hidden_size: units H of z.
        output_size: classes, or dimensions of x.
        products: ``"float32"`` (any type, in truth: as the numbers are), or ``"bfloat16"``: factors of the read-out's
            products are rounded to it, forward and backward, sums and results stay float32. On GPUs, and on CPUs that
            have it, large products are faster so.
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
        if self.products == "bfloat16":
            return bfloat16_linear(z, self.linear.weight, self.linear.bias)
        return linear(z, self.linear.weight, self.linear.bias)

    @abstractmethod
    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x_t | z_t) with batch shape ``(..., B, T)``, from z ``(..., B, T, H)``."""


class Softmax(dist.Categorical):
    """A categorical given by scores ``(..., V)`` that are normalised only where a probability is asked for."""

    def __init__(self, scores: Tensor, validate_args: bool | None = None) -> None:
        self.scores = self._param = scores
        self._num_events = scores.shape[-1]
        TorchDistribution.__init__(self, scores.shape[:-1], validate_args=validate_args)

    def expand(self, batch_shape: torch.Size, _instance: Softmax | None = None) -> Softmax:  # type: ignore[override]
        return Softmax(self.scores.expand(*batch_shape, self._num_events), validate_args=self._validate_args)

    @property
    def logits(self) -> Tensor:  # type: ignore[override]
        return F.log_softmax(self.scores, -1)

    @property
    def probs(self) -> Tensor:  # type: ignore[override]
        return F.softmax(self.scores, -1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self.batch_shape)
        scores = self.scores.expand(*shape, self._num_events).reshape(-1, self._num_events)
        loss = F.cross_entropy(scores, value.expand(shape).reshape(-1).long(), reduction="none")
        return -loss.reshape(shape)


class Categorical(Emission):
    """x_t one of ``output_size`` classes, p = softmax(V z_t)."""

    event_dim = 0

    def forward(self, z: Tensor) -> TorchDistribution:
        return Softmax(self.read_out(z))


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
