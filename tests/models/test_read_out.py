"""Emissions whose read-out has a hidden layer."""

import pyro
import pytest
import torch

from noisin_pyro import LanguageModel, NoisyRNN, PriorAsGuide_ELBO, SequenceModel, noise_penalty
from noisin_pyro.data import Sequences
from noisin_pyro.models.emissions import EMISSIONS
from noisin_pyro.models.read_out import with_plain_weights

from ..small_layers import BATCH, PARTICLES, STEPS, UNITS, close
from .test_emissions import OUTPUTS, reference

HIDDEN = 7


@pytest.mark.parametrize("name", EMISSIONS)
def test_hidden_layer(name: str) -> None:
    emission = EMISSIONS[name](UNITS, OUTPUTS, read_out_size=HIDDEN).double()
    z = torch.randn(PARTICLES, BATCH, STEPS, UNITS, dtype=torch.float64)
    hidden = torch.relu(z @ emission.hidden.weight.T + emission.hidden.bias)
    scores = hidden @ emission.linear.weight.T + emission.linear.bias
    expected = reference(name, scores, emission)
    for law in (emission(z), with_plain_weights(emission)(z)):
        x = law.sample()
        close(law.log_prob(x), expected.log_prob(x))
        parameters = list(emission.parameters())
        first, second = (
            torch.autograd.grad(p.log_prob(x).sum(), parameters, retain_graph=True) for p in (law, expected)
        )
        for gradient, other in zip(first, second, strict=True):
            close(gradient, other)


@pytest.mark.parametrize("bound", ["elbo", "filtering"])
def test_in_a_language_model_with_tied_weights(bound: str) -> None:
    model = LanguageModel(11, 6, tie_weights=True, emission_hidden_size=6)
    tokens = torch.randint(11, (2, 3, 5))
    loss = PriorAsGuide_ELBO(2, bound=bound)(model)(*tokens)
    loss.backward()
    assert model.emission.linear.weight is model.embedding.weight
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.emission.parameters())


def test_plain_weights_are_those_that_are_conditioned_on() -> None:
    emission = EMISSIONS["bernoulli"](UNITS, OUTPUTS)
    emission.linear.weight = pyro.nn.PyroSample(
        pyro.distributions.Normal(0.0, 1.0).expand([OUTPUTS, UNITS]).to_event(2)
    )
    z = torch.randn(BATCH, STEPS, UNITS)
    with emission._pyro_context:
        plain = with_plain_weights(emission)
        close(plain(z).log_prob(torch.ones(OUTPUTS)), emission(z).log_prob(torch.ones(OUTPUTS)), 1e-5)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="tie_weights needs a read-out as wide as the embedding, 6 units, got"):
        LanguageModel(11, 6, tie_weights=True, emission_hidden_size=5)
    with pytest.raises(ValueError, match="emission_hidden_size=5 has no effect on an emission instance"):
        SequenceModel(NoisyRNN(2, 3), EMISSIONS["poisson"](3, 2), emission_hidden_size=5)
    with pytest.raises(ValueError, match=r"read_out_size.*positive.*0"):
        EMISSIONS["poisson"](3, 2, read_out_size=0)
    model = SequenceModel(NoisyRNN(2, 3, feedback=False), "bernoulli", 2, emission_hidden_size=5)
    with pytest.raises(ValueError, match="needs a linear read-out"):
        noise_penalty(model, Sequences(torch.randn(3, 4, 2), torch.ones(3, 4, 2)))
