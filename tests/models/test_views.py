"""All backends and views define the same model."""

import warnings
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import LogNormal
from pyro.infer import Predictive, Trace_ELBO
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro.models import CELLS, NoisyRNN, real_steps
from noisin_pyro.noise import describe

from .. import textbook
from ..small_layers import (
    ADDITIVE,
    LENGTHS,
    MULTIPLICATIVE,
    NATIVE,
    SPREADS,
    STEPS,
    UNITS,
    close,
    draw_noises,
    given,
    in_plates,
    layer_sites,
    make_inputs,
    make_rnn,
    make_state,
    parts,
    returned,
    traced,
)

REAL = real_steps(LENGTHS, STEPS)
PRIOR = LogNormal(0.0, 0.5)
WITH_NOISES = [(cell, noise) for cell in CELLS for noise in ADDITIVE + MULTIPLICATIVE] + [("sigmoid", "gamma:native")]
NOISE_OFF = [
    (cell, f"{entry.name}:{entry.form}")
    for cell in CELLS
    for entry in describe()
    if cell == "sigmoid" or entry.form != "native"  # native forms take the sigmoid cell's means
]


def log_density_of_noise(rnn: NoisyRNN, noise: Tensor, mean: Tensor, spread: float) -> Tensor:
    """log p(z_t) from ε_t: log p(ε_t) − log|dz_t/dε_t|, ``(..., B, T)``."""
    log_prob = rnn.noise.law(mean.new_full((1,), spread), UNITS).log_prob(noise)
    if rnn.noise.discrete:
        return log_prob
    coordinates = UNITS - (rnn.noise.name == "dirichlet")  # ε sums to zero: the last unit follows from the others
    jacobian = textbook.scale(str(rnn.noise), mean, spread).abs().log()
    return log_prob - jacobian[..., :coordinates].sum(-1)


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize(("cell", "noise"), WITH_NOISES)
def test_views_agree_in_z_and_in_density(cell: str, noise: str, num_layers: int) -> None:
    rnn, inputs = make_rnn(cell, noise, num_layers), make_inputs()
    state, noises = make_state(rnn), draw_noises(rnn)
    expected = textbook.run(rnn, inputs, textbook.noisy(noise, SPREADS, noises), state)
    paths = layer_sites([layer.z for layer in expected])
    program = in_plates(rnn)
    arguments = (inputs, state, LENGTHS)

    by_noise = traced(given(nz.innovations(program), layer_sites(noises, "_noise")), *arguments)
    fused = traced(given(program, paths), *arguments)
    unrolled = traced(nz.unroll(given(program, paths)), *arguments)

    for number, (layer, noise_path) in enumerate(zip(expected, noises, strict=True), start=1):
        close(by_noise.nodes[f"z_{number}"]["value"], layer.z)
        close(fused.nodes[f"z_{number}"]["fn"].innovate(layer.z), noise_path)
        steps = [unrolled.nodes[f"z_{number}_{t}"] for t in range(1, STEPS + 1)]
        close(torch.stack([site["fn"].mean for site in steps], -2), layer.mean)

        from_noise = log_density_of_noise(rnn, noise_path, layer.mean, SPREADS[number - 1])
        in_full = torch.where(REAL, from_noise, 0.0).sum(-1)
        assert in_full.isfinite().all()
        close(fused.nodes[f"z_{number}"]["log_prob"], in_full)
        close(torch.stack([site["log_prob"] for site in steps], -1), torch.where(REAL, from_noise, 0.0))


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("noise", ["beta:native", "poisson:native"])
def test_natives_without_innovations_agree_in_density(noise: str, num_layers: int) -> None:
    rnn, inputs = make_rnn("sigmoid", noise, num_layers), make_inputs()
    program = in_plates(rnn)
    drawn = traced(program, inputs, None, LENGTHS)
    paths = {f"z_{layer}": drawn.nodes[f"z_{layer}"]["value"] for layer in range(1, num_layers + 1)}
    expected = textbook.run(rnn, inputs, lambda layer, t, mean: paths[f"z_{layer}"][..., t, :])
    unrolled = traced(nz.unroll(given(program, paths)), inputs, None, LENGTHS)
    for number, layer in enumerate(expected, start=1):
        law = rnn.noise(layer.mean, SPREADS[number - 1])
        log_prob = torch.where(REAL, law.log_prob(paths[f"z_{number}"]), 0.0).sum(-1)
        assert log_prob.isfinite().all()
        close(drawn.nodes[f"z_{number}"]["log_prob"], log_prob)
        steps = [unrolled.nodes[f"z_{number}_{t}"] for t in range(1, STEPS + 1)]
        close(torch.stack([site["log_prob"] for site in steps]).sum(0), log_prob)
        close(torch.stack([site["fn"].mean for site in steps], -2), layer.mean)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("noise", ["gaussian", "bernoulli:multiplicative", *NATIVE])
def test_unrolled_trace_has_the_same_log_prob_sum(noise: str, lengths: Tensor | None) -> None:
    rnn, inputs = make_rnn("sigmoid", noise, 2, input_spread=0.0), make_inputs()
    program = in_plates(rnn)
    unrolled = traced(nz.unroll(program), inputs, lengths=lengths)
    paths = {name: unrolled.nodes[name]["value"] for name in ("z_1", "z_2")}
    for name, path in paths.items():  # the layer's site is its steps, stacked
        close(path, torch.stack([unrolled.nodes[f"{name}_{t}"]["value"] for t in range(1, STEPS + 1)], -2))
    fused = traced(given(program, paths), inputs, lengths=lengths)
    close(unrolled.log_prob_sum(), fused.log_prob_sum())
    z, _ = returned(unrolled)
    assert z is paths["z_2"]


def test_unrolled_steps_can_be_conditioned_and_replayed() -> None:
    rnn, inputs = make_rnn("lstm"), make_inputs()
    unrolled = nz.unroll(in_plates(rnn))
    trace = traced(unrolled, inputs)
    steps = {f"z_1_{t}": trace.nodes[f"z_1_{t}"]["value"] for t in range(1, STEPS + 1)}
    for again in (given(unrolled, steps), poutine.replay(unrolled, trace=trace)):
        close(traced(again, inputs).nodes["z_1"]["value"], trace.nodes["z_1"]["value"], 0.0)


def test_padded_noise_has_its_prior_density_and_does_not_affect_the_state() -> None:
    rnn, inputs = make_rnn("lstm", "gamma"), make_inputs()
    program = nz.innovations(in_plates(rnn))
    (noise,) = draw_noises(rnn)
    other = torch.where(REAL[..., None], noise, draw_noises(rnn)[0])
    first, second = (traced(given(program, {"z_1_noise": e}), inputs, None, LENGTHS) for e in (noise, other))
    for actual, expected in zip(*(returned(trace)[1] for trace in (first, second)), strict=True):
        close(actual, expected, 0.0)
    law = rnn.noise.law(torch.full((1,), SPREADS[0], dtype=torch.float64), UNITS)
    close(first.nodes["z_1_noise"]["log_prob"], law.log_prob(noise).sum(-1))
    assert float(first.nodes["z_1"]["log_prob_sum"]) == 0.0


def test_native_beta_keeps_its_site_in_innovations() -> None:
    trace = traced(nz.innovations(in_plates(make_rnn("sigmoid", "beta:native"))), make_inputs())
    assert "z_1_noise" not in trace.nodes
    assert not trace.nodes["z_1"]["is_observed"]


def test_native_poisson_has_no_innovations() -> None:
    with pytest.raises(ValueError, match=r"z_1.*poisson:additive"):
        nz.innovations(in_plates(make_rnn("sigmoid", "poisson:native")))(make_inputs())


def test_views_do_not_change_an_observed_trajectory() -> None:
    rnn, inputs = make_rnn(), make_inputs()
    z = traced(in_plates(rnn), inputs).nodes["z_1"]["value"]
    observed = given(in_plates(rnn), {"z_1": z})
    expected = traced(observed, inputs).log_prob_sum()
    for view in (nz.innovations, nz.noise_off):
        close(traced(view(observed), inputs).log_prob_sum(), expected, 0.0)


@pytest.mark.parametrize("view", [nz.unroll, nz.innovations, nz.noise_off])
def test_a_view_of_a_module_is_a_module_with_the_same_parameters(view) -> None:
    model = nz.LanguageModel(7, UNITS, spread=nz.Spread(0.3, learn=True))
    viewed = view(model)
    assert {id(p) for p in viewed.parameters()} == {id(p) for p in model.parameters()}
    tokens = torch.zeros(2, 3, dtype=torch.long)
    viewed(tokens, tokens).emission.log_prob(tokens).sum().backward()
    assert model.rnn.weight_hh_l0.grad is not None


@pytest.mark.parametrize("feedback", [True, False])
@pytest.mark.parametrize(("cell", "noise"), NOISE_OFF)
def test_noise_off_equals_the_model_with_spread_zero(cell: str, noise: str, feedback: bool) -> None:
    inputs, input_spread = make_inputs(), 0.2 if feedback and not noise.endswith("native") else 0.0
    spread = [0.3, 0.2] if feedback else 0.3
    rnn = make_rnn(cell, noise, 2, spread=spread, feedback=feedback, input_spread=input_spread)
    still = make_rnn(cell, num_layers=2, spread=0.0)
    still.load_state_dict(rnn.state_dict())
    state = make_state(rnn)
    trace = traced(nz.noise_off(in_plates(rnn, particles=None)), inputs, state, LENGTHS)
    assert trace.stochastic_nodes == ["sequences"]
    z, end = returned(trace)
    expected_z, expected_end = still(inputs, state, LENGTHS)
    close(z, expected_z)
    for actual, expected in zip(parts(end), parts(expected_end), strict=True):
        close(actual, expected)


def test_eval_mode_keeps_the_noise() -> None:
    rnn, inputs = make_rnn().eval(), make_inputs()
    with pyro.plate("sequences", 4, dim=-1):
        assert not torch.equal(rnn(inputs)[0], rnn(inputs)[0])


@pytest.mark.parametrize("view", [nz.unroll, nz.innovations, nz.noise_off])
def test_a_trajectory_cannot_be_conditioned_on_outside_the_view(view) -> None:
    model = nz.SequenceModel(make_rnn(), "gaussian", 2).double()
    z = traced(model, make_inputs()).nodes["z_1"]["value"]
    with pytest.raises(ValueError, match="'z_1' is computed in this view"):
        poutine.condition(view(model), data={"z_1": z})(make_inputs())


@pytest.mark.parametrize("inner", [nz.unroll, nz.innovations, nz.noise_off])
@pytest.mark.parametrize("outer", [nz.unroll, nz.innovations, nz.noise_off])
def test_outermost_of_nested_views_applies(outer, inner) -> None:
    model = nz.SequenceModel(make_rnn(), "gaussian", 2).double()
    assert traced(outer(inner(model)), make_inputs()).nodes.keys() == traced(outer(model), make_inputs()).nodes.keys()


@pytest.mark.parametrize("view", [nz.unroll, nz.innovations, nz.noise_off])
def test_a_replay_inside_a_view_is_refused(view) -> None:
    model = nz.SequenceModel(make_rnn(), "gaussian", 2).double()
    trace = traced(model, make_inputs())
    with pytest.raises(ValueError, match="replay the view itself"):
        view(poutine.replay(model, trace=trace))(make_inputs())


def test_innovations_with_a_support_that_depends_on_a_sampled_spread_are_refused() -> None:
    model = nz.SequenceModel(make_rnn(noise="gamma:multiplicative", spread=nz.Spread(prior=PRIOR)), "gaussian", 2)
    with pytest.raises(ValueError, match="support depends on its spread, and the spread has a prior"):
        nz.innovations(model.double())(make_inputs())


@pytest.mark.parametrize("name", ["mean-field", "smoothing"])
def test_a_guide_by_name_needs_its_view_outside_the_library(name: str) -> None:
    """Pyro's own functions would ignore noise that the model does not sample."""
    model = nz.SequenceModel(make_rnn(), "gaussian", 2).double()
    guide, x = nz.guides.get(name, model), torch.zeros(*make_inputs().shape[:-1], 2).double()
    loss = Trace_ELBO().loss(nz.innovations(model), guide, make_inputs(), x)
    assert loss == loss
    Predictive(nz.innovations(model), guide=guide, num_samples=2)(make_inputs(), x)
    for call in (lambda: Trace_ELBO().loss(model, guide, make_inputs(), x), lambda: predicted(model, guide, x)):
        with warnings.catch_warnings(), pytest.raises(ValueError, match=r"pass the view .* innovations\(model\)"):
            warnings.simplefilter("ignore")  # Pyro's own about sites of the guide
            call()


def test_states_that_are_given_beside_their_noise() -> None:
    model = nz.SequenceModel(make_rnn(), "gaussian", 2).double()
    draws = Predictive(nz.innovations(model), num_samples=4, return_sites=["z_1", "z_1_noise"])(make_inputs())
    assert "x" in Predictive(model, posterior_samples=draws)(make_inputs())


def predicted(model: nz.SequenceModel, guide: Any, x: Tensor) -> Any:
    return Predictive(model, guide=guide, num_samples=2)(make_inputs(), x)
