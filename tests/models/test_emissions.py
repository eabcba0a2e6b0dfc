"""Emissions have the documented distributions."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI
from scipy import stats
from torch import Tensor, nn

import noisin_pyro as nz
from noisin_pyro.data import Sequences
from noisin_pyro.models import NoisyRNN, Scaled, SequenceModel
from noisin_pyro.models.emissions import EMISSIONS, Gaussian, HeteroscedasticGaussian, Mixture, Poisson
from noisin_pyro.models.read_out import Emission, ModuleEmission

from ..small_layers import BATCH, PARTICLES, STEPS, UNITS, close

OUTPUTS = 4


def reference(name: str, scores: Tensor, emission: Any) -> dist.TorchDistribution:
    """The same distribution, built from Pyro's distributions."""
    if name == "categorical":
        return dist.Categorical(logits=scores)
    if name == "heteroscedastic-gaussian":
        return dist.Normal(scores[..., :OUTPUTS], scores[..., OUTPUTS:].exp()).to_event(1)
    laws: dict[str, Callable[[], Any]] = {
        "bernoulli": lambda: dist.Bernoulli(torch.sigmoid(scores)),
        "poisson": lambda: dist.Poisson(torch.exp(scores)),
        "gaussian": lambda: dist.Normal(scores, emission.scale),
        "student-t": lambda: dist.StudentT(emission.df, scores, emission.scale),
        "negative-binomial": lambda: dist.GammaPoisson(emission.concentration, emission.concentration / scores.exp()),
    }
    return laws[name]().to_event(1)


def vary(emission: Emission) -> None:
    """Give every dimension parameters of its own."""
    with torch.no_grad():
        for name, parameter in emission.named_parameters(recurse=False):
            assert name.endswith("_unconstrained")
            parameter.add_(torch.linspace(-1, 1, OUTPUTS))


@pytest.mark.parametrize("batch", [(BATCH,), (PARTICLES, BATCH)])
@pytest.mark.parametrize("name", EMISSIONS)
def test_log_prob(name: str, batch: tuple[int, ...]) -> None:
    emission = EMISSIONS[name](UNITS, OUTPUTS).double()
    vary(emission)
    z = torch.randn(*batch, STEPS, UNITS, dtype=torch.float64)
    linear = emission.linear
    expected = reference(name, z @ linear.weight.T + linear.bias, emission)
    law = emission(z)
    x = law.sample()
    assert (law.batch_shape, law.event_dim) == (torch.Size([*batch, STEPS]), emission.event_dim)
    close(law.log_prob(x), expected.log_prob(x))
    if name != "categorical":
        close(law.mean, expected.mean)
    first, second = (torch.autograd.grad(p.log_prob(x).sum(), emission.parameters()) for p in (law, expected))
    for gradient, other in zip(first, second, strict=True):
        close(gradient, other)


def test_negative_binomial_against_scipy() -> None:
    emission = EMISSIONS["negative-binomial"](UNITS, OUTPUTS)
    emission.concentration = torch.tensor([0.1, 1.0, 30.0, 1e7])  # nearly a Poisson in the last
    z, x = torch.randn(BATCH, STEPS, UNITS), torch.randint(20, (BATCH, STEPS, OUTPUTS)).float()
    r, mean = emission.concentration.detach().double(), emission.read_out(z).detach().double().exp()
    expected = stats.nbinom.logpmf(x.numpy(), r.numpy(), (r / (r + mean)).numpy()).sum(-1)
    actual = emission(z).log_prob(x)
    assert actual.dtype == torch.float32
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=1e-5)
    law = emission(z).base_dist
    close(law.mean.double(), mean, 1e-5)
    close(law.variance.double(), mean + mean.square() / r, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e3, 1e5])
@pytest.mark.parametrize("name", ["poisson", "negative-binomial", "heteroscedastic-gaussian"])
def test_large_read_outs_have_finite_densities_and_gradients(name: str, scale: float, dtype: torch.dtype) -> None:
    emission = EMISSIONS[name](1, 1).to(dtype)
    with torch.no_grad():
        emission.linear.weight.zero_()
        emission.linear.weight[-1] = 1.0  # of the logarithm
        emission.linear.bias.zero_()
    for value in (0.0, 3.0):
        z = torch.tensor([-scale, scale], dtype=dtype).reshape(2, 1, 1).requires_grad_()
        density = emission(z).log_prob(torch.full((2, 1, 1), value, dtype=dtype))
        (gradient,) = torch.autograd.grad(density.sum(), z)
        assert density.isfinite().all() and gradient.isfinite().all()
        if scale == 1e3:  # towards the data, and not 0
            assert gradient[1] < 0 and (value == 0 or gradient[0] > 0)
        assert emission(z).sample().isfinite().all()


@pytest.mark.parametrize("name", EMISSIONS)
def test_output_size_zero_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"output_size.*positive.*0"):
        EMISSIONS[name](UNITS, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("poisson", 1.5), ("negative-binomial", -1.0), ("bernoulli", 2.0), ("gaussian", torch.nan)],
)
def test_targets_outside_the_support_are_refused(name: str, value: float) -> None:
    model = SequenceModel(NoisyRNN(2, UNITS), name, OUTPUTS)
    targets = torch.ones(BATCH, STEPS, OUTPUTS)
    targets[1, 2, 3] = value
    inputs = torch.zeros(BATCH, STEPS, 2)
    is_missing = value != value
    message = "single values are missing" if is_missing else "must be in the support.*use another emission: gaussian"
    for check in (lambda: model(inputs, targets), lambda: model.emission.check_values(targets)):
        with pytest.raises(ValueError, match=f"targets .*{message}"):
            check()
    mask = torch.ones(BATCH, STEPS).bool()
    mask[1, 2] = False
    assert model(inputs, targets, mask=mask).emission.event_shape == (OUTPUTS,)


class Logistic(Emission):
    num_parameters = 2

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        location, log_scale = self.read_out(z).chunk(2, -1)
        return dist.Logistic(location, log_scale.exp()).to_event(1)


def test_custom_emission_with_two_parameters_for_each_dimension() -> None:
    model = SequenceModel(NoisyRNN(3, UNITS), Logistic(UNITS, 3))
    x = torch.randn(BATCH, STEPS, 3)
    emission, _ = model(x, x)
    law = emission.base_dist
    close(emission.log_prob(x), dist.Logistic(law.loc, law.scale).log_prob(x).sum(-1), 1e-6)
    assert model.emission.linear.out_features == 6
    assert nz.evaluate(model, Sequences(x, x), "particle-filter", num_samples=8).num_steps == BATCH * STEPS


def test_a_read_out_as_wide_as_its_parameters_says_how_to_declare_them() -> None:
    class Wide(Logistic):
        num_parameters = 1

    model = SequenceModel(NoisyRNN(3, UNITS), Wide(UNITS, 6))
    with pytest.raises(ValueError, match=r"\(\.\.\., 4, 5, 6\), got \(4, 5, 3\); .*Wide.*as num_parameters"):
        model(torch.zeros(BATCH, STEPS, 3), torch.zeros(BATCH, STEPS, 3))


def test_custom_emission_is_checked_at_construction() -> None:
    class Wrong(Logistic):
        event_dim = 2

    class Without(Logistic):
        num_parameters = 0

    with pytest.raises(ValueError, match=r"Wrong\.event_dim must be 0 or 1, got 2"):
        Wrong(UNITS, 3)
    with pytest.raises(ValueError, match=r"Without\.num_parameters must be a positive integer, got 0"):
        Without(UNITS, 3)
    with pytest.raises(ValueError, match="output_size must be a positive integer, got 0"):
        Logistic(UNITS, 0)
    with pytest.raises(TypeError, match=r"Emission must define forward\(z\)"):
        Emission(UNITS, 3)


class Plain(nn.Module):
    """A module that returns a distribution."""

    def __init__(self, law: Callable[[Tensor], Any], width: int) -> None:
        super().__init__()
        self.law, self.linear = law, nn.Linear(UNITS, width)

    def forward(self, z: Tensor) -> Any:
        return self.law(self.linear(z))


def test_a_plain_module_is_an_emission() -> None:
    def gaussian(scores: Tensor) -> dist.TorchDistribution:
        return dist.Normal(scores, 1.0).to_event(1)

    model = SequenceModel(NoisyRNN(3, UNITS), Plain(gaussian, 2)).double()
    same = SequenceModel(NoisyRNN(3, UNITS), "gaussian", 2).double()
    same.rnn.load_state_dict(model.rnn.state_dict())
    same.emission.linear.load_state_dict(model.emission.module.linear.state_dict())
    data = Sequences(torch.randn(BATCH, STEPS, 3).double(), torch.randn(BATCH, STEPS, 2).double())
    for method in ("mean", "particle-filter"):
        scores = []
        for each in (model, same):
            torch.manual_seed(0)
            scores.append(nz.evaluate(each, data, method).nats_per_step)
        assert scores[0] == pytest.approx(scores[1], rel=1e-8)
    loss = nz.PriorAsGuide_ELBO()(model)(data.inputs, data.targets)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.emission.parameters())
    with pytest.raises(ValueError, match="ModuleEmission has no linear read-out"):
        nz.export(model)


@pytest.mark.parametrize(
    ("law", "width", "size", "message"),
    [
        (lambda scores: scores, 2, None, r"must return a Pyro distribution.*got Tensor"),
        (lambda scores: dist.Normal(scores, 1.0), 2, None, r"got Normal of shapes \(2, 1, 2\) and \(\)"),
        (lambda scores: torch.distributions.Categorical(logits=scores), 2, 2, "Pyro distribution.*got Categorical"),
        (lambda scores: dist.Categorical(logits=scores), 2, None, "output_size must be the number of classes"),
        (lambda scores: dist.Normal(scores, 1.0).to_event(1), 2, 3, "output_size must be 2.*got 3"),
        (lambda scores: dist.Normal(scores @ scores, 1.0), 2, 3, r"Plain does not run on z of shape \(2, 1, 3\)"),
    ],
)
def test_modules_that_return_something_else_are_refused(law: Any, width: int, size: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModuleEmission(Plain(law, width), UNITS, size)


def test_mixture() -> None:
    mixture = Mixture([HeteroscedasticGaussian(UNITS, 2), Gaussian(UNITS, 2)]).double()
    z, x = torch.randn(PARTICLES, BATCH, STEPS, UNITS).double(), torch.randn(BATCH, STEPS, 2).double()
    weights, law = (z @ mixture.weights.weight.T + mixture.weights.bias).softmax(-1), mixture(z)
    first, second = (component(z) for component in mixture.components)
    expected = weights[..., 0] * first.log_prob(x).exp() + weights[..., 1] * second.log_prob(x).exp()
    close(law.log_prob(x), expected.log())
    close(law.mean, weights[..., :1] * first.mean + weights[..., 1:] * second.mean)
    close(law.expand((3, *law.batch_shape)).log_prob(x), expected.log().expand(3, *law.batch_shape))
    moments = [each.variance + each.mean.square() for each in (first, second)]
    close(law.variance, weights[..., :1] * moments[0] + weights[..., 1:] * moments[1] - law.mean.square())
    assert torch.autograd.gradcheck(lambda z: mixture(z).log_prob(x), z.requires_grad_())
    # sums of squares of 20,000 draws against their means; 5 standard errors have a false-alarm rate of 6e-7 each
    torch.manual_seed(0)
    draws = law.sample((20_000,)).detach()[:, 0, 0, 0]
    assert draws.shape == (20_000, 2)
    second_moment = law.variance + law.mean.square()
    for values, truth in ((draws, law.mean[0, 0, 0]), (draws.square(), second_moment[0, 0, 0])):
        assert ((values.mean(0) - truth).abs() < 5 * values.std(0) / 20_000**0.5).all()


def test_components_have_parameters_of_their_own() -> None:
    model = SequenceModel(NoisyRNN(2, UNITS), Mixture([Gaussian(UNITS, 1), EMISSIONS["student-t"](UNITS, 1)]))
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    with pyro.settings.context(module_local_params=False), pyro.get_param_store().scope():
        svi = SVI(model, None, pyro.optim.Adam({"lr": 0.1}), nz.PriorAsGuide_ELBO())
        svi.step(torch.randn(2, 3, 2), torch.randn(2, 3, 1))
        assert "emission.components.1.df" in pyro.get_param_store()
    assert not any(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


def test_a_mixture_is_an_emission() -> None:
    model = SequenceModel(NoisyRNN(2, UNITS), Mixture([Gaussian(UNITS, 1), EMISSIONS["student-t"](UNITS, 1)]))
    data = Sequences(torch.randn(BATCH, STEPS, 2), torch.randn(BATCH, STEPS, 1))
    loss = nz.PriorAsGuide_ELBO(num_particles=2)(model)(data.inputs, data.targets)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.emission.parameters())
    assert nz.evaluate(model, data, "particle-filter", num_samples=8).num_steps == BATCH * STEPS
    with pytest.raises(ValueError, match="Mixture has no linear read-out"):
        nz.export(model)
    for emissions in (
        [],
        [Gaussian(UNITS, 1), Gaussian(UNITS, 2)],
        [Poisson(UNITS, 1), EMISSIONS["categorical"](3, 1)],
    ):
        with pytest.raises(ValueError, match="emissions of a mixture must have one hidden_size"):
            Mixture(emissions)


def test_exported_means_and_scales_are_in_the_units_of_the_data() -> None:
    emission = Scaled(HeteroscedasticGaussian(UNITS, 2), (1.0, -2.0), (3.0, 0.5))
    model = SequenceModel(NoisyRNN(2, UNITS, spread=0.0), emission).double()
    inputs = torch.randn(BATCH, STEPS, 2).double()
    means, log_scales = nz.export(model)(inputs)[0].chunk(2, -1)
    law = model(inputs).emission
    close(means, law.mean)
    close(log_scales.exp(), law.variance.sqrt())
