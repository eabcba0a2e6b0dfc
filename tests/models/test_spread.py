"""γ: fixed, learned above a floor, with a prior."""

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor
from torch.nn import functional as F

import noisin_pyro as nz
from noisin_pyro.models import Spread, SpreadPrior

from ..small_layers import (
    BATCH,
    FEATURES,
    PARTICLES,
    SPREADS,
    STEPS,
    UNITS,
    close,
    in_plates,
    make_inputs,
    make_rnn,
    traced,
)

PRIOR = dist.Gamma(2.0, 4.0)
LIKE = torch.zeros((), dtype=torch.float64)


@pytest.mark.parametrize("value", [0.0, 0.3, 2.0])
def test_fixed(value: float) -> None:
    spread = Spread(value)
    gamma = spread(LIKE)
    assert gamma.shape == (1, 1)
    assert (float(gamma), gamma.dtype) == (value, torch.float64)
    assert spread.is_zero == (value == 0.0)
    assert not list(spread.parameters())


@pytest.mark.parametrize(("options", "start", "floor"), [({}, 0.3, 0.1), ({"value": 0.5, "floor": 0.0}, 0.5, 0.0)])
def test_learned_is_the_floor_plus_a_softplus(options: dict[str, float], start: float, floor: float) -> None:
    spread = Spread(learn=True, **options).double()
    (rho,) = spread.parameters()
    assert math.isclose(float(spread(LIKE).detach()), start, rel_tol=1e-6)
    with torch.no_grad():
        rho.fill_(1.7)
    gamma = spread(LIKE)
    close(gamma, floor + F.softplus(rho).reshape(1, 1), 1e-7)
    (gradient,) = torch.autograd.grad(gamma.sum(), rho)
    close(gradient, torch.sigmoid(rho))
    assert not spread.is_zero


@pytest.mark.parametrize("target", [0.0, 100.0])
def test_large_steps_never_cross_the_floor(target: float) -> None:
    spread = Spread(0.3, floor=0.1, learn=True)
    optimizer = torch.optim.SGD(spread.parameters(), lr=1e3)
    for _ in range(20):
        optimizer.zero_grad()
        (spread(torch.zeros(())) - target).square().sum().backward()
        optimizer.step()
        assert 0.1 <= float(spread(torch.zeros(())).detach()) < math.inf


def test_gradient_reaches_the_spread_of_every_layer() -> None:
    rnn = make_rnn(num_layers=3, spread=Spread(0.3, learn=True), input_spread=Spread(0.2, learn=True))
    learned = [p for name, p in rnn.named_parameters() if name.startswith("spread_")]
    assert len({id(p) for p in learned}) == 4  # a copy each
    z, _ = rnn(make_inputs())
    z.square().sum().backward()
    for parameter in learned:
        assert parameter.grad is not None
        assert parameter.grad != 0.0


def test_layers_do_not_share_a_spread() -> None:
    given = Spread(0.3, learn=True)
    rnn = make_rnn(num_layers=2, spread=given)
    with torch.no_grad():
        for parameter in rnn.spread_1.parameters():
            parameter.add_(1.0)
    gammas = rnn.spreads()
    assert gammas["gamma_1"] > gammas["gamma_2"]
    assert math.isclose(gammas["gamma_2"], float(given(LIKE).detach()), rel_tol=1e-6)


def test_spreads_can_be_replaced() -> None:
    rnn, inputs = make_rnn(num_layers=2, spread=Spread(0.3, learn=True), input_spread=0.2), make_inputs()
    rnn(inputs)
    rnn.set_spread([0.0, Spread(0.6, learn=True)])
    assert rnn.spreads() == pytest.approx({"gamma_0": 0.2, "gamma_2": 0.6})
    assert [name for name, _ in rnn.named_parameters() if "spread" in name] == ["spread_2.excess_unconstrained"]
    assert all(parameter.dtype == torch.float64 for parameter in rnn.parameters())
    rnn.spread, rnn.input_spread = 0.0, 0.0
    assert rnn.spreads() == {} and torch.equal(rnn(inputs)[0], rnn(inputs)[0])


def test_spreads_that_the_noise_cannot_take_leave_the_old_ones() -> None:
    rnn = make_rnn("sigmoid", "beta:native", num_layers=2, spread=0.5)
    for wrong in (1.5, [0.2, 1.0], [0.1]):
        with pytest.raises(ValueError, match="spread must be"):
            rnn.spread = wrong
    assert rnn.spreads() == {"gamma_1": 0.5, "gamma_2": 0.5}


@pytest.mark.parametrize("name", ["spread", "noise", "cell", "num_layers", "regularizer"])
def test_arguments_that_a_module_does_not_read_cannot_be_set(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} belongs to the layers"):
        setattr(nz.LanguageModel(5, 3), name, 0.0)
    if name == "regularizer":
        with pytest.raises(ValueError, match="regularizer is an argument of the constructor"):
            setattr(make_rnn(), name, "D")


@pytest.mark.parametrize("name", ["value", "learn"])
def test_arguments_of_a_spread_cannot_be_set(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is an argument of Spread; make a new one"):
        setattr(Spread(0.3), name, 0.5)


def test_a_repr_tells_sizes_cell_noise_and_spreads() -> None:
    rnn = make_rnn("gru", "gamma:multiplicative", num_layers=2, spread=[0.25, Spread(0.5, learn=True)])
    lines = [line.strip() for line in repr(rnn).splitlines()]
    assert lines == [
        "NoisyRNN(",
        f"{FEATURES}, {UNITS}, num_layers=2, cell='gru', noise='gamma:multiplicative', feedback=True",
        "(spread_0): Spread(0)",
        "(spread_1): Spread(0.25)",
        "(spread_2): Spread(0.5, floor=0.1, learn=True)",
        ")",
    ]
    assert repr(Spread(prior=PRIOR)) == f"Spread(prior={PRIOR})"


def test_spreads_by_name() -> None:
    assert make_rnn(num_layers=3).spreads() == {f"gamma_{i}": gamma for i, gamma in enumerate(SPREADS, start=1)}
    assert make_rnn(spread=0.0).spreads() == {}
    assert make_rnn(spread=0.25, input_spread=0.5).spreads() == {"gamma_0": 0.5, "gamma_1": 0.25}
    assert make_rnn(spread=Spread(0.5, learn=True)).spreads() == pytest.approx({"gamma_1": 0.5})


@pytest.mark.parametrize("view", [lambda model: model, nz.innovations, nz.unroll])
def test_a_prior_is_sampled_once_for_all_sequences(view) -> None:
    model = nz.SequenceModel(make_rnn(num_layers=2, spread=Spread(prior=PRIOR)), "gaussian", 2).double()
    program = view(model)
    inputs = make_inputs()
    single = traced(program, inputs)
    with pyro.plate("particles", 6, dim=-2):
        several = traced(program, inputs)
    for name in ("rnn.spread_1.gamma", "rnn.spread_2.gamma"):
        assert single.nodes[name]["value"].shape == ()
        close(single.nodes[name]["log_prob"], PRIOR.log_prob(single.nodes[name]["value"]), 1e-6)
        assert several.nodes[name]["value"].shape == (6, 1)
    assert several.nodes["z_2"]["value"].shape == (6, BATCH, STEPS, UNITS)


def test_sampled_spread_scales_the_noise() -> None:
    model = nz.SequenceModel(make_rnn(spread=Spread(prior=PRIOR)), "gaussian", 2).double()
    noise = torch.randn(3, BATCH, STEPS, UNITS, dtype=torch.float64)
    gamma = torch.tensor([[0.1], [0.5], [2.0]], dtype=torch.float64)
    values = {"rnn.spread_1.gamma": gamma, "z_1_noise": noise}
    with pyro.plate("particles", 3, dim=-2):
        z = traced(poutine.condition(nz.innovations(model), data=values), make_inputs(1).expand(BATCH, -1, -1))
    path = z.nodes["z_1"]["value"]
    pyro.set_rng_seed(0)
    for s in range(3):
        fixed = make_rnn(spread=float(gamma[s]))
        fixed.load_state_dict({k: v for k, v in model.rnn.state_dict().items() if not k.startswith("spread")})
        alone = poutine.condition(nz.innovations(in_plates(fixed, None)), data={"z_1_noise": noise[s]})
        close(alone(z.nodes["_INPUT"]["args"][0])[0], path[s])


def test_noise_with_a_sampled_spread_has_the_precision_of_the_inputs() -> None:
    model = nz.SequenceModel(make_rnn(spread=Spread(prior=PRIOR)), "gaussian", 2).double()
    trace = traced(nz.innovations(model), make_inputs())
    assert trace.nodes["z_1_noise"]["value"].dtype == torch.float64


def test_prior_inside_a_plate_of_sequences_is_refused() -> None:
    inputs = make_inputs()
    with pytest.raises(ValueError, match="use SequenceModel, which samples γ before it opens the plate"):
        in_plates(make_rnn(spread=Spread(prior=PRIOR)), None)(inputs)
    model = nz.SequenceModel(make_rnn(spread=Spread(prior=PRIOR)), "gaussian", 2).double()
    trace = traced(model, inputs)
    assert sum("gamma" in name for name in trace.stochastic_nodes) == 1


@pytest.mark.parametrize("step", [-1e6, 1e6])
@pytest.mark.parametrize("floor", [0.0, 0.1, 0.37])
def test_native_beta_keeps_a_learned_spread_below_one(floor: float, step: float) -> None:
    rnn = make_rnn("sigmoid", "beta:native", spread=Spread(0.5, floor=floor, learn=True)).float()
    assert rnn.spreads()["gamma_1"] == pytest.approx(0.5)
    with torch.no_grad():
        for parameter in rnn.spread_1.parameters():
            parameter.add_(step)
    assert floor <= rnn.spreads()["gamma_1"] < 1.0
    assert rnn(make_inputs().float())[0].isfinite().all()


def test_native_beta_with_a_prior_on_the_unit_interval() -> None:
    rnn = make_rnn("sigmoid", "beta:native", spread=Spread(prior=dist.Beta(2.0, 2.0)))
    assert traced(rnn, make_inputs()).nodes["z_1"]["log_prob"].isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"value": -0.1}, "value.*-0.1"),
        ({"value": math.inf}, "value.*inf"),
        ({"value": math.nan}, "value.*nan"),
        ({"floor": 0.1}, "floor.*learn"),
        ({"value": 0.1, "floor": 0.1, "learn": True}, "above its floor"),
        ({"value": 0.3, "floor": -0.1, "learn": True}, "floor"),
        ({"value": 0.05, "learn": True}, "above its floor"),
        ({"value": 0.3, "prior": PRIOR}, "prior replaces"),
        ({"learn": True, "prior": PRIOR}, "prior replaces"),
        ({"prior": dist.Normal(0.0, 1.0)}, "positive"),
        ({"prior": dist.Gamma(torch.ones(2), 1.0)}, "one positive number"),
    ],
)
def test_wrong_spreads(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Spread(**options)


def test_site_of_a_prior_records_its_layer() -> None:
    prior = Spread(prior=dist.Gamma(2.0, 4.0))
    for particles in (None, PARTICLES):
        rnn = make_rnn(num_layers=2, spread=prior, input_spread=prior)
        model = nz.SequenceModel(rnn, "gaussian", 2).double()
        program = model if particles is None else in_particles(model)
        laws = {name: site["fn"] for name, site in traced(program, make_inputs()).nodes.items() if "gamma" in name}
        assert {name: law.layer for name, law in laws.items()} == {f"rnn.spread_{i}.gamma": i for i in range(3)}
        assert all(isinstance(law, SpreadPrior) and law.support is prior.prior.support for law in laws.values())


def in_particles(model: nz.SequenceModel) -> Callable[..., object]:
    def program(inputs: Tensor) -> object:
        with pyro.plate("particles", PARTICLES, dim=-2):
            return model(inputs)

    return program
