"""Normal priors on the layers' weights: sites, means, equation (1) and guides."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoNormal

import noisin_pyro as nz
from noisin_pyro.models import CELLS, NoisyRNN, SequenceModel

MATRICES = {f"rnn.weight_{kind}_l{layer}" for kind in ("ih", "hh") for layer in (0, 1)}


@pytest.fixture(autouse=True)
def own_parameters() -> Any:
    with pyro.settings.context(module_local_params=True):
        pyro.set_rng_seed(0)
        yield


def make(cell: str = "tanh", noise: str = "gaussian", **options: Any) -> SequenceModel:
    return SequenceModel(NoisyRNN(3, 4, 2, cell=cell, noise=noise, **options), "gaussian", 2, "normal").double()


def data() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(5, 6, 3).double(), torch.randn(5, 6, 2).double()


def sampled(trace: Any) -> set[str]:
    return {
        name
        for name, site in trace.nodes.items()
        if site["type"] == "sample" and not site["is_observed"] and "plate" not in type(site["fn"]).__name__.lower()
    }


@pytest.mark.parametrize("cell", CELLS)
def test_each_matrix_is_a_site_outside_the_plate(cell: str) -> None:
    trace = poutine.trace(make(cell)).get_trace(*data())
    nodes: dict[str, Any] = dict(trace.nodes)
    assert nodes.keys() >= MATRICES
    for name in MATRICES:
        assert nodes[name]["cond_indep_stack"] == ()
        assert nodes[name]["value"].shape == nodes[name]["fn"].event_shape
    assert not any("bias" in name for name in sampled(trace))


@pytest.mark.parametrize("cell", CELLS)
def test_noise_off_sets_the_weights_to_their_means(cell: str) -> None:
    model, plain = make(cell), SequenceModel(NoisyRNN(3, 4, 2, cell=cell, spread=0.0), "gaussian", 2).double()
    plain.load_state_dict(
        {name.replace("_mean", ""): value for name, value in model.state_dict().items() if "spread" not in name}
    )
    inputs, targets = data()
    off = nz.noise_off(model)(inputs, targets).emission.base_dist.loc
    torch.testing.assert_close(off, plain(inputs, targets).emission.base_dist.loc)
    result = nz.evaluate(model, nz.data.Sequences(inputs, targets), method="mean")
    assert result.kind == "predictor"
    assert result.nats_per_step == pytest.approx(
        nz.evaluate(plain, nz.data.Sequences(inputs, targets), method="mean").nats_per_step
    )


@pytest.mark.parametrize("particles", [1, 3])
def test_the_bound_is_the_mean_log_likelihood_over_weights_and_noise(particles: int) -> None:
    model, (inputs, targets) = make(), data()
    bound = nz.PriorAsGuide_ELBO(particles, max_plate_nesting=1)
    (pair,) = bound._get_traces(model, None, (inputs, targets), {})
    nodes: dict[str, Any] = dict(pair[0].nodes)
    leading = () if particles == 1 else (particles, 1)
    assert nodes["rnn.weight_hh_l0"]["value"].shape == (*leading, 4, 4)
    loss = bound(model)(inputs, targets)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    for name in MATRICES:  # η is learned: the means and the deviations
        mean, excess = gradients[f"{name}_mean"], gradients[f"{name}_spread.excess_unconstrained"]
        assert mean is not None and mean.any()
        assert excess is not None and excess.any()


def test_gradient_of_the_deviation_matches_finite_differences() -> None:
    model, (inputs, targets) = make(spread=0.2), data()
    bound = nz.PriorAsGuide_ELBO(2, max_plate_nesting=1)(model)
    spread = model.rnn.weight_hh_l0_spread

    def loss() -> torch.Tensor:
        pyro.set_rng_seed(7)
        return bound(inputs, targets)

    loss().backward()
    (leaf,) = spread.parameters()
    step, values = 1e-6, []
    for sign in (1, -1):
        with torch.no_grad():
            leaf.add_(sign * step)
            values.append(loss().item())
            leaf.sub_(sign * step)
    assert leaf.grad is not None
    assert leaf.grad.item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)


def test_guide_over_the_weights_of_a_noisy_network() -> None:
    model, (inputs, targets) = make(spread=0.2), data()
    weights = poutine.block(model, expose_fn=lambda site: site["name"] in MATRICES or site["type"] == "param")
    guide = AutoNormal(weights, init_scale=0.05)
    bound = nz.PriorAsGuide_ELBO(max_plate_nesting=1)(model, guide)
    bound(inputs, targets)  # makes the guide's parameters
    optimizer = torch.optim.Adam(bound.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = bound(inputs, targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < sum(losses[:10])
    guide_trace = poutine.trace(guide).get_trace(inputs, targets)
    assert {name.removesuffix("_unconstrained") for name in sampled(guide_trace)} == MATRICES  # z keeps its prior


def test_kl_of_the_weights_only() -> None:
    model, (inputs, targets) = make(spread=0.2), data()

    def guide(*args: Any) -> None:
        for name in sorted(MATRICES):
            layer = name.removeprefix("rnn.")
            mean = getattr(model.rnn, f"{layer}_mean")
            pyro.sample(name, dist.Normal(mean + 0.1, 0.07).to_event(2))

    bound = nz.PriorAsGuide_ELBO(max_plate_nesting=1)
    (pair,) = bound._get_traces(model, guide, (inputs, targets), {})
    in_model, in_guide = (dict(trace.nodes) for trace in pair)
    price = {name: in_model[name]["fn"].log_prob(in_guide[name]["value"]) for name in MATRICES}
    cost = {name: in_guide[name]["fn"].log_prob(in_guide[name]["value"]) for name in MATRICES}
    likelihood = in_model["x"]["fn"].log_prob(targets).sum()
    value, _ = bound._elbo(*pair)
    torch.testing.assert_close(value, likelihood + sum(price.values()) - sum(cost.values()))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="weight_prior must be one of dirac, normal, got 'laplace'"):
        SequenceModel(NoisyRNN(3, 4), "gaussian", 2, "laplace")
