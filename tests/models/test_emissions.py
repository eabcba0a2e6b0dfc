"""Emissions have the documented distributions."""

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from noisin_pyro.models import NoisyRNN, SequenceModel
from noisin_pyro.models.emissions import EMISSIONS, Emission

from ..small_layers import BATCH, PARTICLES, STEPS, UNITS, close

OUTPUTS = 4


def reference(name: str, scores: Tensor, scale: Tensor | None) -> dist.TorchDistribution:
    """The same distribution, built from Pyro's distributions."""
    if name == "categorical":
        return dist.Categorical(logits=scores)
    if name == "bernoulli":
        return dist.Bernoulli(torch.sigmoid(scores)).to_event(1)
    if name == "poisson":
        return dist.Poisson(torch.exp(scores)).to_event(1)
    assert scale is not None
    return dist.Normal(scores, scale).to_event(1)


@pytest.mark.parametrize("batch", [(BATCH,), (PARTICLES, BATCH)])
@pytest.mark.parametrize("name", EMISSIONS)
def test_log_prob(name: str, batch: tuple[int, ...]) -> None:
    emission = EMISSIONS[name](UNITS, OUTPUTS).double()
    if name == "gaussian":
        with torch.no_grad():
            emission.scale_unconstrained.add_(torch.linspace(-1, 1, OUTPUTS))
    z = torch.randn(*batch, STEPS, UNITS, dtype=torch.float64)
    linear = emission.linear
    expected = reference(name, z @ linear.weight.T + linear.bias, getattr(emission, "scale", None))
    law = emission(z)
    x = law.sample()
    assert (law.batch_shape, law.event_dim) == (torch.Size([*batch, STEPS]), emission.event_dim)
    close(law.log_prob(x), expected.log_prob(x))
    if name != "categorical":
        close(law.mean, expected.mean)
    first, second = (torch.autograd.grad(p.log_prob(x).sum(), emission.parameters()) for p in (law, expected))
    for gradient, other in zip(first, second, strict=True):
        close(gradient, other)


@pytest.mark.parametrize("name", EMISSIONS)
def test_output_size_zero_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"output_size.*positive.*0"):
        EMISSIONS[name](UNITS, 0)


class StudentT(Emission):
    def forward(self, z: Tensor) -> dist.TorchDistribution:
        return dist.StudentT(4.0, self.read_out(z)).to_event(1)


def test_custom_emission() -> None:
    model = SequenceModel(NoisyRNN(3, UNITS), StudentT(UNITS, 3))
    x = torch.randn(BATCH, STEPS, 3)
    emission, _ = model(x, x)
    close(emission.log_prob(x), dist.StudentT(4.0, emission.base_dist.loc).log_prob(x).sum(-1), 1e-6)


def test_custom_emission_is_checked_at_construction() -> None:
    class Wrong(StudentT):
        event_dim = 2

    with pytest.raises(ValueError, match=r"Wrong\.event_dim must be 0 or 1, got 2"):
        Wrong(UNITS, 3)
    with pytest.raises(ValueError, match="output_size must be a positive integer, got 0"):
        StudentT(UNITS, 0)
    with pytest.raises(TypeError, match=r"Emission must define forward\(z\)"):
        Emission(UNITS, 3)
