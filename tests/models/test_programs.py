"""Layers and models inside a user's own Pyro programs, trained by Pyro's own tools."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoDiagonalNormal, AutoNormal
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro.models import CELLS, NoisyRNN, Spread

from ..small_layers import BATCH, FEATURES, LENGTHS, PARTICLES, STEPS, UNITS, close, make_inputs, make_rnn, traced


class Program:
    """A user's function of inputs and data around a layer, with or without ``pyro.module``."""

    def __init__(self, rnn: NoisyRNN, register: bool) -> None:
        self.rnn, self.register = rnn, register

    def __call__(self, inputs: Tensor, data: Tensor | None = None) -> Tensor:
        if self.register:
            pyro.module("rnn", self.rnn)
        sigma = pyro.sample("sigma", dist.LogNormal(0.0, 0.5))
        with pyro.plate("mine", inputs.shape[-3], dim=-1):
            z, _ = self.rnn(inputs, None, LENGTHS)
            return pyro.sample("y", dist.Normal(z.sum(-1), sigma.unsqueeze(-1)).to_event(1), obs=data)


@pytest.mark.parametrize("register", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_a_plain_program_has_the_same_density_in_every_view(cell: str, register: bool) -> None:
    program = Program(make_rnn(cell, num_layers=2, spread=Spread(0.3, learn=True)), register)
    inputs = make_inputs()
    with pyro.plate("particles", PARTICLES, dim=-2):
        trace = traced(nz.unroll(program), inputs)
        values = {name: trace.nodes[name]["value"] for name in ("z_1", "z_2", "sigma", "y")}
        fused = traced(poutine.condition(program, data=values), inputs)
    close(trace.log_prob_sum(), fused.log_prob_sum())
    assert fused.nodes["z_2"]["log_prob"].shape == (PARTICLES, BATCH)


@pytest.mark.parametrize("guide", [AutoNormal, AutoDiagonalNormal, AutoDelta])
@pytest.mark.parametrize("noise", ["gaussian", "gamma", "beta", "gamma:multiplicative"])
def test_svi_with_the_global_store_updates_every_parameter(noise: str, guide) -> None:
    spread = 0.3 if noise == "gamma:multiplicative" else Spread(0.3, learn=True)
    rnn = NoisyRNN(FEATURES, UNITS, 2, "lstm", noise, spread)
    program = nz.innovations(Program(rnn, register=True))
    inputs, data = make_inputs().float(), torch.randn(BATCH, STEPS)
    svi = SVI(program, guide(program), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    before = [parameter.detach().clone() for parameter in rnn.parameters()]
    for _ in range(2):
        assert torch.isfinite(torch.tensor(svi.step(inputs, data)))
    for parameter, start in zip(rnn.parameters(), before, strict=True):
        assert not torch.equal(parameter, start)


def test_automatic_guide_with_a_support_that_depends_on_a_learned_spread_is_refused() -> None:
    """ε of multiplicative gamma is above -1/γ, and Pyro's guides keep the support that they see first."""
    rnn = NoisyRNN(FEATURES, UNITS, 1, "lstm", "gamma:multiplicative", Spread(0.3, learn=True))
    view = nz.innovations(nz.SequenceModel(rnn, "gaussian", 2))
    with pytest.raises(ValueError, match="keep the support of their first call; fix the spread"):
        AutoNormal(view)(make_inputs().float(), torch.randn(BATCH, STEPS, 2))


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("tie_weights", [False, True])
def test_svi_of_a_language_model(tie_weights: bool, particles: int) -> None:
    model = nz.LanguageModel(7, UNITS, 2, spread=Spread(0.3, learn=True), tie_weights=tie_weights)
    view = nz.innovations(model)
    elbo = Trace_ELBO(num_particles=particles, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(view, AutoNormal(view), pyro.optim.ClippedAdam({"lr": 0.01}), elbo)
    tokens, targets = torch.randint(7, (2, BATCH, STEPS))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(2):
        assert torch.isfinite(torch.tensor(svi.step(tokens, targets, lengths=LENGTHS)))
    for parameter, start in zip(model.parameters(), before, strict=True):
        assert not torch.equal(parameter, start)


def test_svi_of_a_spread_with_a_prior() -> None:
    model = nz.LanguageModel(7, UNITS, spread=Spread(prior=dist.Gamma(2.0, 4.0)))
    view = nz.innovations(model)
    guide = AutoNormal(view)
    elbo = Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(view, guide, pyro.optim.Adam({"lr": 0.01}), elbo)
    tokens = torch.randint(7, (BATCH, STEPS))
    assert torch.isfinite(torch.tensor([svi.step(tokens, tokens) for _ in range(2)])).all()
    assert guide.median(tokens, tokens).keys() == {"rnn.spread_1.gamma", "z_1_noise"}


def test_guide_over_the_states_of_native_beta() -> None:
    model = nz.SequenceModel(NoisyRNN(FEATURES, UNITS, 1, "sigmoid", "beta:native"), "gaussian", 2)
    view = nz.innovations(model)
    svi = SVI(view, AutoNormal(view), pyro.optim.Adam({"lr": 0.01}), Trace_ELBO())
    inputs = make_inputs().float()
    assert torch.isfinite(torch.tensor(svi.step(inputs, torch.zeros(BATCH, STEPS, 2))))


def test_guide_over_states_with_a_moving_support_is_refused() -> None:
    model = nz.SequenceModel(NoisyRNN(FEATURES, UNITS, noise="gamma"), "gaussian", 2)
    guide = AutoNormal(model)
    with pytest.raises(ValueError, match="innovations"):
        guide(make_inputs().float(), torch.zeros(BATCH, STEPS, 2))


def test_two_layers_of_different_names_in_one_program() -> None:
    first, second = make_rnn(name="low"), make_rnn(name="high")

    def program(inputs: Tensor) -> None:
        with pyro.plate("mine", BATCH, dim=-1):
            first(inputs)
            second(inputs)

    trace = traced(nz.innovations(program), make_inputs())
    assert {"low_1_noise", "high_1_noise"} <= set(trace.stochastic_nodes)
