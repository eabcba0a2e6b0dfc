"""Read-outs: the distributions that they claim to be."""

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from noisin_pyro.models.emissions import EMISSIONS, Softmax

from .programs import BATCH, PARTICLES, STEPS, UNITS, close

OUTPUTS = 4


def reference(name: str, scores: Tensor, scale: Tensor | None) -> dist.TorchDistribution:
    """The same distribution from Pyro's own."""
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


@pytest.fixture
def scores() -> Tensor:
    return torch.randn(PARTICLES, BATCH, OUTPUTS, dtype=torch.float64)


def test_softmax_is_a_categorical(scores: Tensor) -> None:
    law, expected = Softmax(scores), dist.Categorical(logits=scores)
    close(law.logits, expected.logits)
    close(law.probs, expected.probs)
    close(law.entropy(), expected.entropy())
    assert law.shape() == expected.shape()
    assert law.param_shape == expected.param_shape
    close(law.enumerate_support(), expected.enumerate_support())
    close(law.log_prob(law.enumerate_support()).exp().sum(0), torch.ones(PARTICLES, BATCH, dtype=torch.float64))


def test_softmax_broadcasts_and_expands(scores: Tensor) -> None:
    law, expected = Softmax(scores), dist.Categorical(logits=scores)
    for value in (torch.randint(OUTPUTS, (BATCH,)), torch.randint(OUTPUTS, (5, PARTICLES, BATCH))):
        close(law.log_prob(value), expected.log_prob(value))
    wide = law.expand(torch.Size([3, PARTICLES, BATCH]))
    value = wide.sample((6,))
    assert value.shape == (6, 3, PARTICLES, BATCH)
    close(wide.log_prob(value), expected.log_prob(value))
    mask = torch.rand(PARTICLES, BATCH) < 0.5
    value = law.sample()
    close(law.mask(mask).log_prob(value), torch.where(mask, expected.log_prob(value), 0.0))


def test_softmax_draws_with_its_probabilities() -> None:
    """Each of 4 frequencies beyond 5.5 standard errors with probability 4e-8: false alarm below 2e-7."""
    law = Softmax(torch.tensor([0.0, 1.0, -1.0, 2.0]))
    draws = torch.nn.functional.one_hot(law.sample((20000,)), 4).float()
    assert ((draws.mean(0) - law.probs).abs() < 5.5 * (law.probs * (1 - law.probs) / 20000).sqrt()).all()


@pytest.mark.parametrize("expanded", [False, True])
def test_a_class_that_does_not_exist_is_refused(scores: Tensor, expanded: bool) -> None:
    law = Softmax(scores)
    if expanded:
        law = law.expand(torch.Size([3, PARTICLES, BATCH]))
    with pytest.raises(ValueError, match="support"):
        law.log_prob(torch.full((BATCH,), OUTPUTS))


@pytest.mark.parametrize("name", EMISSIONS)
def test_no_outputs(name: str) -> None:
    with pytest.raises(ValueError, match=r"output_size.*positive.*0"):
        EMISSIONS[name](UNITS, 0)
