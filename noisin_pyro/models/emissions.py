"""p(x_t | z_t): the distribution of an observation given the last layer's state (paper, section 3, step 2 of the
generative process)."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.nn import PyroModule, PyroParam
from torch import Tensor, nn

from noisin_pyro._lookup import integer
from noisin_pyro.models._module import ReusableModule
from noisin_pyro.recurrence.matmul import (
    check_bfloat16_operands,
    check_matmul_precision,
    fast_linear,
    linear,
)
from noisin_pyro.recurrence.softmax import Softmax

T = TypeVar("T", bound=nn.Module)


class Emission(ReusableModule):
    """A read-out of z, linear or with a hidden layer, and the distribution that it parametrises.

    Subclass it for an emission of your own, and give an instance to :class:`SequenceModel`: define ``forward``, and
    declare ``event_dim`` if x_t is not a vector. Further parameters are declared as in any Pyro module::

        class StudentT(Emission):
            def forward(self, z):
                return dist.StudentT(4.0, self.read_out(z)).to_event(1)

        model = SequenceModel(NoisyRNN(3, 8), StudentT(8, 3))

    Attributes:
        event_dim: dimensions of one x_t: 1 for a vector of ``output_size``, 0 for a class or another single number.
        hidden: the hidden layer of the read-out, whose units are rectified; None if there is none.
        linear: the read-out's weights V and b.

    Args:
        hidden_size: units H of z.
        output_size: classes, or dimensions of x.
        matmul_precision: ``"float32"`` (products in the dtype of the weights, whichever that is), or ``"bfloat16"``:
            operands and results of the read-out's products are rounded to it, forward and backward, and sums are
            accumulated in float32.
        read_out_size: units of the read-out's hidden layer; None for a linear read-out, as in the paper.

    Raises:
        ValueError: for a size below 1, an ``event_dim`` other than 0 or 1, or a precision that the machine lacks.
        TypeError: for a class that defines no ``forward``.
    """

    event_dim: int = 1
    hidden_size: int
    output_size: int
    matmul_precision: str

    def __init__(
        self,
        hidden_size: int,
        output_size: int,
        matmul_precision: str = "float32",
        read_out_size: int | None = None,
    ) -> None:
        super().__init__()
        kind = type(self)
        if kind.forward is Emission.forward:
            raise TypeError(f"{kind.__name__} must define forward(z), the distribution of x given z")
        if self.event_dim not in (0, 1):
            raise ValueError(f"{kind.__name__}.event_dim must be 0 or 1, got {self.event_dim!r}")
        self.hidden_size, self.output_size = integer("hidden_size", hidden_size), integer("output_size", output_size)
        self.matmul_precision = check_matmul_precision(matmul_precision)
        self.hidden: Any = None
        features = self.hidden_size
        if read_out_size is not None:
            features = integer("read_out_size", read_out_size)
            self.hidden = PyroModule[nn.Linear](self.hidden_size, features)  # type: ignore[call-arg]
        self.linear: Any = PyroModule[nn.Linear](features, self.output_size)  # type: ignore[call-arg]

    def standardized(self, targets: Tensor) -> Tensor:
        """Targets as a guide reads them: finite, and where values are scaled, scaled."""
        return targets

    def features(self, z: Tensor) -> Tensor:
        """What the linear map of the read-out takes: z_t, or max(0, U z_t + a) of the hidden layer."""
        return z if self.hidden is None else self._product(self.hidden, z).relu()

    def read_out(self, z: Tensor) -> Tensor:
        """V features(z_t) + b, ``(..., B, T, output_size)``; with sampled weights too."""
        return self._product(self.linear, self.features(z))

    def _product(self, layer: nn.Linear, z: Tensor) -> Tensor:
        weight, bias = layer.weight, layer.bias
        if self.matmul_precision == "bfloat16":
            check_bfloat16_operands(z, weight, bias)
        if weight.dim() == 2 and bias.dim() == 1:
            return fast_linear(z, weight, bias, self.matmul_precision)
        return linear(z, weight, bias)

    def forward(self, z: Tensor) -> TorchDistribution:
        """p(x_t | z_t) with batch shape ``(..., B, T)``, from z ``(..., B, T, H)``."""
        raise NotImplementedError


class Categorical(Emission):
    """x_t one of ``output_size`` classes, p = softmax(V features(z_t) + b)."""

    event_dim = 0

    def forward(self, z: Tensor) -> TorchDistribution:
        return Softmax(self.features(z), self.linear.weight, self.linear.bias, self.matmul_precision)


class Bernoulli(Emission):
    """x_t a vector of independent bits (a chord of keys)."""

    def forward(self, z: Tensor) -> TorchDistribution:
        return dist.Bernoulli(logits=self.read_out(z)).to_event(1)


class Gaussian(Emission):
    """x_t a real vector with independent errors, whose standard deviations are learned (``scale``, starting at 1)."""

    scale: Any

    def __init__(
        self,
        hidden_size: int,
        output_size: int,
        matmul_precision: str = "float32",
        read_out_size: int | None = None,
    ) -> None:
        super().__init__(hidden_size, output_size, matmul_precision, read_out_size)
        self.scale = PyroParam(torch.ones(output_size), constraint=constraints.softplus_positive)

    def forward(self, z: Tensor) -> TorchDistribution:
        return dist.Normal(self.read_out(z), self.scale).to_event(1)


class Poisson(Emission):
    """x_t a vector of counts, with rates exp(V z_t)."""

    def forward(self, z: Tensor) -> TorchDistribution:
        return dist.Poisson(self.read_out(z).exp()).to_event(1)


def with_plain_weights(module: T) -> T:
    """A shallow copy whose weights are plain attributes, read once: Pyro records every access to a module's own."""
    plain = copy.copy(module)
    names = {name.removesuffix("_unconstrained") for name in module._parameters}
    values = {name: getattr(module, name) for name in names | set(getattr(module, "_pyro_samples", ()))}
    children = {name: child and with_plain_weights(child) for name, child in module._modules.items()}
    plain.__dict__.update(values | children)  # found before Pyro's __getattr__ is asked
    return plain


EMISSIONS: dict[str, type[Emission]] = {
    "categorical": Categorical,
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
    "poisson": Poisson,
}
