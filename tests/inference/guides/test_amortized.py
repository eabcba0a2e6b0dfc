"""Guides by name: they start at the prior, have correct densities, and depend only on the documented inputs."""

import math
from typing import Any

import pyro
import pyro.optim
import pytest
import torch
from pyro import poutine
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro.inference.guides import NAMED
from noisin_pyro.inference.traces import all_sites
from noisin_pyro.models import CELLS, NoisyRNN, SequenceModel

from .networks import data, learned, log_weights, make, perturbed, price, uncertain

CONTINUOUS = ["laplace", "logistic", "gumbel", "gamma", "exponential", "chi2", "beta", "dirichlet"]
OTHERS = ["gaussian:multiplicative", "gamma:multiplicative"]


@pytest.fixture(autouse=True)
def own_parameters() -> Any:
    with pyro.settings.context(module_local_params=True):
        pyro.set_rng_seed(0)
        yield


CASES: list[dict[str, Any]] = [
    *({"cell": cell} for cell in CELLS),
    *({"noise": name} for name in CONTINUOUS + OTHERS),
    {"noise": "gamma:native", "cell": "sigmoid"},
    {"noise": "beta:native", "cell": "sigmoid"},
    {"noise": "gamma:multiplicative", "spread": learned},
    {"spread": learned},
    {"spread": uncertain},
    {"spread": [0.0, 0.4]},
    {"weight_prior": "normal"},
    {"input_spread": 0.3, "cell": "lstm"},
    {"feedback": False},
]


def case_id(options: dict[str, Any]) -> str:
    """The options of a case; functions by name, since ids must be the same in every process."""
    return " ".join(f"{name}={getattr(value, '__name__', value)}" for name, value in options.items())


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("options", CASES, ids=case_id)
def test_starts_at_the_prior_and_every_parameter_is_learned(options: dict[str, Any], name: str, covariance: str):
    model = make(**options)
    guide = nz.guides.get(name, model, covariance=covariance)
    lengths = torch.tensor([5, 0, 2])
    assert price(model, guide, *data(), lengths=lengths).item() == pytest.approx(0, abs=1e-9)
    assert price(model, guide, *data(), particles=2).item() == pytest.approx(0, abs=1e-9)
    perturbed(guide, 0.1)
    bound = nz.PriorAsGuide_ELBO(2, max_plate_nesting=1)(nz.innovations(model), guide)
    loss = bound(*data(), lengths=lengths)
    loss.backward()
    assert loss.isfinite()
    for owner in (guide, model.rnn):
        for parameter_name, parameter in owner.named_parameters():
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all() and parameter.grad.any(), parameter_name


@pytest.mark.parametrize("name", NAMED)
def test_the_first_bound_is_equation_1(name: str):
    # the guide's first draws are the prior's: the same seed gives the same noise, with one layer
    model, batch = make(layers=1), data()
    guide = nz.guides.get(name, model)
    losses = []
    for pair in ((model, None), (nz.innovations(model), guide)):
        pyro.set_rng_seed(3)
        losses.append(nz.PriorAsGuide_ELBO(max_plate_nesting=1)(*pair)(*batch))
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize(
    "options",
    [
        {}, {"cell": "lstm"}, {"cell": "gru"}, {"input_spread": 0.3}, {"feedback": False},
        *({"noise": noise} for noise in CONTINUOUS + OTHERS),
        {"noise": "beta:native", "cell": "sigmoid"}, {"noise": "gamma:native", "cell": "sigmoid"},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.slow
def test_mean_importance_weight_is_the_likelihood(options: dict[str, Any], name: str, covariance: str):
    # E_q[p(x, ε) / q(ε)] = p(x) = E_p[p(x | ε)]; a wrong density of any part would show. |z| > 5: 6e-7 a sequence
    model, (inputs, targets) = make(**options), data(steps=2)
    guide = perturbed(nz.guides.get(name, model, covariance=covariance), 0.05)
    samples, mean, variance = 20_000, [], []
    with torch.no_grad():
        for q in (None, guide):
            w = log_weights(model, q, inputs, targets, particles=samples).exp()
            w = w.expand(samples, 3)
            mean.append(w.mean(0))
            variance.append(w.var(0) / samples)
    z = (mean[0] - mean[1]) / (variance[0] + variance[1]).sqrt()
    assert z.abs().max() < 5, z


def test_density_equals_that_of_a_gaussian():
    model, (inputs, targets) = make(layers=1), data()
    guide = perturbed(nz.guides.get("mean-field", model, covariance="full"))
    trace = poutine.trace(guide).get_trace(inputs, targets)
    trace.compute_log_prob()
    nodes: dict[str, Any] = dict(trace.nodes)
    head = guide.head(1)
    affine = head(head.of_context(guide.encoder(inputs, targets, None)), None, None)
    factor = torch.diag_embed(affine.log_diagonal.exp())
    rows, columns = torch.tril_indices(4, 4, -1)
    factor[..., rows, columns] = affine.below
    exact = torch.distributions.MultivariateNormal(affine.shift, scale_tril=factor)
    torch.testing.assert_close(
        nodes["z_1_before"]["log_prob"] + nodes["z_1_noise"]["log_prob"],
        exact.log_prob(nodes["z_1_noise"]["value"]).sum(-1),
    )


def drawn(guide: Any, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
    pyro.set_rng_seed(1)
    trace = poutine.trace(guide).get_trace(*args, **kwargs)
    return {site["name"]: site["value"] for site in all_sites(trace) if site["name"].endswith("_noise")}


@pytest.mark.parametrize(("name", "sees"), [("filtering", False), ("smoothing", True), ("mean-field", True)])
def test_only_filtering_is_independent_of_later_steps(name: str, sees: bool):
    model, (inputs, targets) = make(), data()
    guide = perturbed(nz.guides.get(name, model))
    changed = targets.clone()
    changed[:, 3] = 1 - changed[:, 3]
    before, after = drawn(guide, inputs, targets), drawn(guide, inputs, changed)
    for site, noise in before.items():
        assert torch.equal(noise[:, :3], after[site][:, :3]) is not sees
        assert not torch.equal(noise[:, 3], after[site][:, 3])


@pytest.mark.parametrize("name", NAMED)
def test_padding_changes_nothing(name: str):
    model, (inputs, targets) = make(cell="lstm"), data(batch=2)
    guide = perturbed(nz.guides.get(name, model))
    lengths = torch.tensor([5, 3])
    padded = drawn(guide, inputs, targets, lengths=lengths)
    other = targets.clone()
    other[1, 3:] = 1 - other[1, 3:]
    for site, noise in drawn(guide, inputs, other, lengths=lengths).items():
        assert torch.equal(noise, padded[site])
    known = guide.encoder(inputs, targets, lengths)
    alone = guide.encoder(inputs[1:, :3], targets[1:, :3], None)
    torch.testing.assert_close(known[1:, :3], alone)


@pytest.mark.parametrize("name", NAMED)
def test_gradients_match_finite_differences(name: str):
    model, (inputs, targets) = make(noise="gamma"), data()
    guide = perturbed(nz.guides.get(name, model, covariance="full"), 0.1)
    bound = nz.PriorAsGuide_ELBO(3, max_plate_nesting=1)(nz.innovations(model), guide)

    def loss() -> Tensor:
        pyro.set_rng_seed(7)
        return bound(inputs, targets)

    loss().backward()
    for parameter_name, parameter in [*guide.named_parameters(), *model.named_parameters()]:
        direction = torch.randn_like(parameter)
        direction /= direction.norm()
        values = []
        for step in (1e-6, -2e-6, 1e-6):
            values.append(loss().item() if step < 0 else math.nan)
            with torch.no_grad():
                parameter.add_(step * direction)
            if step < 0:
                values.append(loss().item())
        slope = (values[1] - values[2]) / 2e-6
        assert parameter.grad is not None
        exact = (parameter.grad * direction).sum().item()
        assert exact == pytest.approx(slope, rel=1e-4, abs=1e-5), parameter_name


def test_gradient_of_one_gaussian_step_is_the_closed_form():
    # z = h + γε, x ~ N(z, 1): E_q[log p(x|z)] - KL(N(m, s²), N(0, 1)) has d/dm = γ(x - h - γm) - m
    rnn = NoisyRNN(1, 1, cell="identity", spread=0.7)
    model = SequenceModel(rnn, "gaussian", 1).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.emission.linear.weight.fill_(1.0)
        model.emission.scale = torch.ones(1).double()
    guide = nz.guides.get("mean-field", model)
    head = guide.head(1)
    with torch.no_grad():
        head.of_hidden.bias.copy_(torch.tensor([0.4, -0.3]))
    inputs, x = torch.zeros(1, 1, 1).double(), torch.full((1, 1, 1), 1.5).double()
    elbo = nz.PriorAsGuide_ELBO(20_000, max_plate_nesting=1)
    elbo(nz.innovations(model), guide)(inputs, x).backward()
    slope, log_s = head.of_hidden.bias.grad, torch.tensor(-0.3)
    # the Monte Carlo error of 20,000 draws is below 0.01 in both; 6 of them
    assert -slope[0].item() == pytest.approx(0.7 * (1.5 - 0.7 * 0.4) - 0.4, abs=0.06)
    assert -slope[1].item() == pytest.approx(float(1 - (1 + 0.49) * (2 * log_s).exp()), abs=0.06)
