"""p(x_t | z_t): the distribution of an observation given the last layer's state (paper, section 3, step 2 of the
generative process)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.nn import PyroModule, PyroParam
from torch import Size, Tensor, nn

from noisin_pyro.models.read_out import Emission
from noisin_pyro.recurrence.softmax import Softmax


def damped(scores: Tensor, limit: float = 20.0) -> Tensor:
    """Logarithms s up to ±limit, and ±(limit + log(1 + |s| - limit)) beyond.

    Beyond the limit, the exponential grows or falls only linearly in s, so that it does not overflow or vanish, and its
    gradient is not 0.
    """
    return scores.clamp(-limit, limit) + scores.sign() * (scores.abs() - limit).relu().log1p()


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
        self.scale = PyroParam(torch.ones(self.output_size), constraint=constraints.softplus_positive)

    def forward(self, z: Tensor) -> TorchDistribution:
        return dist.Normal(self.read_out(z), self.scale).to_event(1)


class StudentT(Gaussian):
    """x_t a real vector with independent errors of heavy tails.

    Scales (``scale``, starting at 1) and degrees of freedom (``df``, above 1, starting at 5) are learned.
    """

    df: Any

    def __init__(
        self,
        hidden_size: int,
        output_size: int,
        matmul_precision: str = "float32",
        read_out_size: int | None = None,
    ) -> None:
        super().__init__(hidden_size, output_size, matmul_precision, read_out_size)
        self.df = PyroParam(torch.full((self.output_size,), 5.0), constraint=constraints.greater_than(1.0))

    def forward(self, z: Tensor) -> TorchDistribution:
        return dist.StudentT(self.df, self.read_out(z), self.scale).to_event(1)


class HeteroscedasticGaussian(Emission):
    """x_t a real vector with independent errors, whose means and log standard deviations are read out of z_t."""

    num_parameters = 2

    def forward(self, z: Tensor) -> TorchDistribution:
        mean, log_scale = self.read_out(z).chunk(2, -1)
        return dist.Normal(mean, damped(log_scale, 10.0).exp()).to_event(1)


class Poisson(Emission):
    """x_t a vector of counts, with rates exp(V z_t), which grow linearly beyond e^20."""

    def forward(self, z: Tensor) -> TorchDistribution:
        return dist.Poisson(damped(self.read_out(z)).exp()).to_event(1)


class NegativeBinomial(Emission):
    """x_t a vector of counts with means μ = exp(V z_t), as for :class:`Poisson`, and variances μ + μ²/r.

    r is learned (``concentration``, starting at 1); the Poisson is its limit for large r.
    """

    concentration: Any

    def __init__(
        self,
        hidden_size: int,
        output_size: int,
        matmul_precision: str = "float32",
        read_out_size: int | None = None,
    ) -> None:
        super().__init__(hidden_size, output_size, matmul_precision, read_out_size)
        self.concentration = PyroParam(torch.ones(self.output_size), constraint=constraints.softplus_positive)

    def forward(self, z: Tensor) -> TorchDistribution:
        r = self.concentration
        return NegativeBinomialCounts(r, logits=damped(self.read_out(z)) - r.log()).to_event(1)


class NegativeBinomialCounts(dist.NegativeBinomial):
    """Pyro's negative binomial, whose density is computed in float64: its gamma functions cancel for large r."""

    def log_prob(self, value: Tensor) -> Tensor:
        if self.total_count.dtype == torch.float64:
            return super().log_prob(value)
        double = dist.NegativeBinomial(self.total_count.double(), logits=self.logits.double())
        return double.log_prob(value.double()).to(self.total_count)


class Mixture(Emission):
    """x_t from one of K emissions, with probabilities softmax(U z_t + a)::

        Mixture([HeteroscedasticGaussian(8, 1) for _ in range(3)])

    Args:
        emissions: the K components, of equal sizes. They may be of several kinds.

    Raises:
        ValueError: for no components, or components of different sizes.
    """

    def __init__(self, emissions: Sequence[Emission]) -> None:
        emissions = list(emissions)
        sizes = {(each.hidden_size, each.output_size, each.event_dim) for each in emissions}
        if len(sizes) != 1:
            raise ValueError(
                "emissions of a mixture must have one hidden_size, output_size and event_dim, got "
                f"{sorted(sizes) or 'none'}; make them equal"
            )
        super().__init__(emissions[0].hidden_size, emissions[0].output_size)
        self.event_dim, self.linear = emissions[0].event_dim, None
        # Pyro's, so that in its store parameters of components have names of their own
        self.components: Any = PyroModule[nn.ModuleList](emissions)  # type: ignore[call-arg]
        self.weights: Any = PyroModule[nn.Linear](self.hidden_size, len(emissions))  # type: ignore[call-arg]

    def forward(self, z: Tensor) -> TorchDistribution:
        return MixtureOf(self.weights(z).log_softmax(-1), [component(z) for component in self.components])


class MixtureOf(TorchDistribution):
    """A mixture of K distributions of one shape, which may be of several kinds.

    Args:
        log_weights: normalized, ``(..., K)``.
        components: the K distributions, with batch shape ``(...)``.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}  # type: ignore[override]

    def __init__(self, log_weights: Tensor, components: Sequence[TorchDistribution]) -> None:
        self.log_weights, self.components = log_weights, components
        super().__init__(log_weights.shape[:-1], components[0].event_shape)

    @property
    def support(self) -> Any:
        return self.components[0].support

    @property
    def mean(self) -> Tensor:
        return self._select(torch.stack([each.mean for each in self.components]), self.log_weights.exp())

    @property
    def variance(self) -> Tensor:
        mean = self.mean
        around = torch.stack([each.variance + (each.mean - mean).square() for each in self.components])
        return self._select(around, self.log_weights.exp())

    def expand(self, batch_shape: Size, _instance: Any = None) -> MixtureOf:
        components = [each.expand(batch_shape) for each in self.components]
        return MixtureOf(self.log_weights.expand(*batch_shape, -1), components)  # type: ignore[arg-type]

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        chosen = dist.OneHotCategorical(logits=self.log_weights).sample(sample_shape)
        return self._select(torch.stack([each.sample(sample_shape) for each in self.components]), chosen)

    def log_prob(self, value: Tensor) -> Tensor:
        log_probs = torch.stack([each.log_prob(value) for each in self.components], -1)
        return (log_probs + self.log_weights).logsumexp(-1)

    def _select(self, values: Tensor, weights: Tensor) -> Tensor:
        """Σ_k weights_k values_k, of values ``(K, ..., event)`` and weights ``(..., K)``."""
        weights = weights.movedim(-1, 0)
        return (weights.reshape(*weights.shape, *[1] * len(self.event_shape)) * values).sum(0)


EMISSIONS: dict[str, type[Emission]] = {
    "categorical": Categorical,
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
    "student-t": StudentT,
    "heteroscedastic-gaussian": HeteroscedasticGaussian,
    "poisson": Poisson,
    "negative-binomial": NegativeBinomial,
}
