"""A layer that has run alone, or in another model, still works in a model or a PyroModule."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro.models import NoisyRNN, SequenceModel, Spread

BATCH, STEPS, FEATURES, UNITS = 4, 5, 2, 3


@pytest.fixture(params=[True, False], autouse=True, ids=["in modules", "global store"])
def parameter_store(request: pytest.FixtureRequest) -> Iterator[None]:
    with pyro.settings.context(module_local_params=request.param):
        yield


class Own(PyroModule):
    """A user's program around the layers."""

    def __init__(self, layers: Any) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, inputs: Tensor, targets: Tensor | None = None) -> Any:
        with pyro.plate("sequences", len(inputs)):
            z, _ = self.layers(inputs)
            return pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0).to_event(2), obs=targets)


class Around(PyroModule):
    """A user's module around a whole model."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.inner = model

    def forward(self, *args: Any) -> Any:
        return self.inner(*args)


def data() -> tuple[Tensor, Tensor]:
    return torch.randn(BATCH, STEPS, FEATURES), torch.randn(BATCH, STEPS, 1)


def in_a_model(rnn: NoisyRNN) -> Any:
    return SequenceModel(rnn, "gaussian", 1)


TRIED: dict[str, Callable[[NoisyRNN], Any]] = {
    "call": lambda rnn: rnn(data()[0]),
    "spreads": lambda rnn: rnn.spreads(),
    "stepwise": lambda rnn: rnn.stepwise(data()[0]),
    "pyro.module": lambda rnn: pyro.module("layers", rnn),
    "noise_off": lambda rnn: nz.noise_off(rnn)(data()[0]),
    "in a PyroModule": lambda rnn: Own(rnn)(data()[0]),
    "in a model": lambda rnn: in_a_model(rnn)(*data()),
    "in a model in a PyroModule": lambda rnn: Around(in_a_model(rnn))(*data()),
}
PLACES: dict[str, Callable[[NoisyRNN], Any]] = {
    "PyroModule": Own,
    "model": in_a_model,
    "model in a PyroModule": lambda rnn: Around(in_a_model(rnn)),
    "copy in a PyroModule": lambda rnn: Own(copy.deepcopy(rnn)),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("tried", TRIED)
@pytest.mark.parametrize("learn", [False, True])
def test_what_ran_alone_trains_in_a_model(learn: bool, tried: str, place: str) -> None:
    rnn = NoisyRNN(FEATURES, UNITS, spread=Spread(0.3, learn=learn))
    with torch.no_grad():
        TRIED[tried](rnn)
    pyro.clear_param_store()
    model = PLACES[place](rnn)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    loss = nz.PriorAsGuide_ELBO(max_plate_nesting=1)(model)(*data())
    loss.backward()
    optimizer.step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == set(before)


@pytest.mark.parametrize("place", PLACES)
def test_parameters_and_sites_have_the_names_of_the_last_place(place: str) -> None:
    rnn = NoisyRNN(FEATURES, UNITS, spread=Spread(0.3, learn=True))
    rnn(data()[0])
    in_a_model(rnn)(*data())
    pyro.clear_param_store()
    model = PLACES[place](rnn)
    sites = poutine.trace(model).get_trace(*data()).nodes
    assert [name for name, site in sites.items() if site["type"] == "sample"] == ["sequences", "z_1", "x"]
    parameters = {name for name, site in sites.items() if site["type"] == "param"}
    prefix = {"model": "rnn.", "model in a PyroModule": "inner.rnn."}.get(place, "layers.")
    expected = {f"{prefix}{kind}_l0" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    assert {name for name in parameters if name.startswith(prefix)} == expected | {f"{prefix}spread_1.excess"}


@pytest.mark.parametrize("weight_prior", ["dirac", "normal"])
def test_models_share_sampled_spreads_and_weights(weight_prior: str) -> None:
    """Each model samples them once, outside the plate over sequences, under the name of the last place."""
    rnn = NoisyRNN(FEATURES, UNITS, spread=Spread(prior=dist.Gamma(2.0, 4.0)))
    rnn(data()[0])
    first = SequenceModel(rnn, "gaussian", 1, weight_prior)
    second = Around(in_a_model(rnn))
    for model in (first, second, first):
        sites = poutine.trace(model).get_trace(*data()).nodes
        assert sites["inner.rnn.spread_1.gamma"]["value"].shape == ()
        assert not sites["inner.rnn.spread_1.gamma"]["cond_indep_stack"]
        if weight_prior == "normal":
            assert sites["inner.rnn.weight_hh_l0"]["value"].shape == (UNITS, UNITS)


def test_a_second_prior_of_the_same_weights_is_refused() -> None:
    rnn = NoisyRNN(FEATURES, UNITS)
    SequenceModel(rnn, "gaussian", 1, "normal")
    before = [name for name, _ in rnn.named_parameters()]
    with pytest.raises(ValueError, match="weight_prior='normal': the layers' weights have priors already"):
        SequenceModel(rnn, "gaussian", 1, "normal")
    assert [name for name, _ in rnn.named_parameters()] == before


def test_a_shared_layer_trains_with_pyro() -> None:
    """With SVI and a guide over the innovations, after the layer has run in two other models."""
    rnn = NoisyRNN(FEATURES, UNITS, spread=Spread(0.3, learn=True))
    for _ in range(2):
        in_a_model(rnn)(*data())
    pyro.clear_param_store()
    model = nz.innovations(Own(rnn))
    x, y = data()
    guide, elbo = AutoNormal(model), Trace_ELBO(num_particles=10, vectorize_particles=True)
    before = elbo.loss(model, guide, x, y)
    if pyro.settings.get("module_local_params"):
        bound = elbo(model, guide)
        optimizer = torch.optim.Adam(bound.parameters(), 0.05)
        for _ in range(30):
            optimizer.zero_grad()
            bound(x, y).backward()
            optimizer.step()
    else:
        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), elbo)
        for _ in range(30):
            svi.step(x, y)
    assert elbo.loss(model, guide, x, y) < before - 5.0


def test_models_and_emissions_that_ran_alone() -> None:
    model = in_a_model(NoisyRNN(FEATURES, UNITS))
    model(*data())
    model.emission(torch.zeros(1, UNITS))
    Around(model)(*data())
    again = SequenceModel(NoisyRNN(FEATURES, UNITS), model.emission)
    again(*data())
    assert again.emission is model.emission


def new_model(emission: str = "gaussian") -> SequenceModel:
    torch.manual_seed(1)
    return SequenceModel(NoisyRNN(FEATURES, UNITS, spread=Spread(0.3, learn=True)), emission, 1)


def trained(model: SequenceModel, x: Tensor, y: Tensor) -> float:
    """The score after some steps, by Pyro's optimizer in its global store, otherwise by torch's."""
    torch.manual_seed(2)
    if pyro.settings.get("module_local_params"):
        bound = nz.PriorAsGuide_ELBO()(model)
        optimizer = torch.optim.Adam(model.parameters(), 0.05)
        for _ in range(5):
            optimizer.zero_grad()
            bound(x, y).backward()
            optimizer.step()
    else:
        svi = SVI(model, None, pyro.optim.Adam({"lr": 0.05}), nz.PriorAsGuide_ELBO())
        for _ in range(5):
            svi.step(x, y)
    return nz.evaluate(model, nz.data.Sequences(x, y)).nats_per_step


@pytest.mark.parametrize("emission", ["gaussian", "student-t", "negative-binomial"])
def test_a_model_is_what_it_is_without_models_of_the_same_names_before(emission: str) -> None:
    x, y = data()
    y = y.abs().ceil()
    alone = trained(new_model(emission), x, y)
    other = SequenceModel(NoisyRNN(FEATURES + 1, UNITS + 1, spread=Spread(0.9, learn=True)), emission, 2)
    other(torch.zeros(1, 2, FEATURES + 1))
    initial = {name: parameter.clone() for name, parameter in other.named_parameters()}
    assert trained(new_model(emission), x, y) == alone
    assert all(torch.equal(parameter, initial[name]) for name, parameter in other.named_parameters())


def test_models_of_the_same_names_in_turn() -> None:
    x, y = data()
    one, other = new_model(), new_model()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.5)
    sequences = nz.data.Sequences(x, y)
    methods: list[dict[str, Any]] = [{"method": "mean"}, {"method": "particle-filter", "num_samples": 4}]
    for options in methods:
        scores = []
        for model in (one, other, copy.deepcopy(one), other):
            pyro.set_rng_seed(0)
            scores.append(nz.evaluate(model, sequences, **options).nats_per_step)
        assert scores[0] == scores[2] != scores[1] == scores[3]


def test_a_loaded_store_is_read_as_by_any_module(tmp_path: Path) -> None:
    if pyro.settings.get("module_local_params"):
        pytest.skip("there is nothing in the store")
    model = new_model()
    with torch.no_grad():
        model.emission.scale_unconstrained.fill_(2.0)
    model(*data())
    pyro.get_param_store().save(tmp_path / "store.pt")
    pyro.clear_param_store()
    pyro.get_param_store().load(tmp_path / "store.pt")
    again = new_model()
    again(*data())
    assert again.emission.scale_unconstrained.item() == 2.0


def test_a_module_around_layers_is_trained_after_another_model_has_run() -> None:
    x, y = data()
    own, other = Own(NoisyRNN(FEATURES, UNITS, spread=Spread(0.3, learn=True))), new_model()
    initial = {name: parameter.clone() for name, parameter in other.named_parameters()}
    before = {name: parameter.clone() for name, parameter in own.named_parameters()}
    wrapped, inner = Around(other), other
    for model in (own, wrapped, inner):
        model(x, y)
    if pyro.settings.get("module_local_params"):
        nz.PriorAsGuide_ELBO()(own)(x, y).backward()
        torch.optim.SGD(own.parameters(), 0.1).step()
    else:
        SVI(own, None, pyro.optim.SGD({"lr": 0.1}), nz.PriorAsGuide_ELBO()).step(x, y)
    assert not any(torch.equal(parameter, before[name]) for name, parameter in own.named_parameters())
    assert all(torch.equal(parameter, initial[name]) for name, parameter in other.named_parameters())


@pytest.mark.parametrize("has_run", [False, True])
def test_frozen_parameters_stay_frozen(has_run: bool) -> None:
    x, y = data()
    model = new_model()
    if has_run:
        model(x, y)
    for parameter in model.rnn.parameters():
        parameter.requires_grad_(False)
    new_model()(x, y)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    nz.PriorAsGuide_ELBO()(model)(x, y).backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {name for name in before if name.startswith("emission")}
