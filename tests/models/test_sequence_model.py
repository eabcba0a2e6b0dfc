"""The generative programs: sites, scales and shapes in every view, and initial weights."""

import math
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro.models import CELLS, LanguageModel, NoisyRNN, SequenceModel, Spread, initialize_as_published
from noisin_pyro.models.emissions import EMISSIONS, Categorical

from ..small_layers import (
    BATCH,
    FEATURES,
    LENGTHS,
    PARTICLES,
    STEPS,
    UNITS,
    close,
    given,
    make_inputs,
    make_rnn,
    parts,
    returned,
    traced,
)

OUTPUTS, WORDS = 4, 7


def make_model(emission: str = "gaussian", **options: Any) -> SequenceModel:
    return SequenceModel(make_rnn(**options), emission, OUTPUTS).double()


def make_targets(emission: str, *batch: int) -> Tensor:
    shape = (*(batch or (BATCH,)), STEPS)
    if emission == "categorical":
        return torch.randint(OUTPUTS, shape)
    if emission == "gaussian":
        return torch.randn(*shape, OUTPUTS, dtype=torch.float64)
    return torch.randint(2, (*shape, OUTPUTS)).double()


def make_tokens() -> Tensor:
    return torch.randint(WORDS, (BATCH, STEPS))


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("emission", EMISSIONS)
def test_the_observed_site_is_the_sum_over_real_steps(emission: str, lengths: Tensor | None) -> None:
    model, targets = make_model(emission), make_targets(emission)
    trace = traced(model, make_inputs(), targets, None, lengths)
    out = returned(trace)
    log_prob = out.emission.log_prob(targets)
    assert log_prob.shape == (BATCH, STEPS)
    ends = [STEPS] * BATCH if lengths is None else lengths.tolist()
    close(trace.nodes["x"]["log_prob"], torch.stack([log_prob[b, :n].sum() for b, n in enumerate(ends)]))
    close(out.emission.log_prob(targets), model.emission(trace.nodes["z_1"]["value"]).log_prob(targets), 0.0)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("emission", EMISSIONS)
def test_missing_targets_have_no_density(emission: str, lengths: Tensor | None) -> None:
    model, targets = make_model(emission), make_targets(emission)
    mask = torch.arange(BATCH * STEPS).reshape(BATCH, STEPS) % 3 > 0
    trace = traced(model, make_inputs(), targets, None, lengths, mask=mask)
    scored = mask if lengths is None else mask & (torch.arange(STEPS) < lengths[:, None])
    close(trace.nodes["x"]["log_prob"], (returned(trace).emission.log_prob(targets) * scored).sum(1))
    if emission != "categorical":
        missing = targets.where(mask.unsqueeze(-1), float("nan"))
        observed = given(model, {"z_1": trace.nodes["z_1"]["value"].expand(PARTICLES, -1, -1, -1)})
        with pyro.plate("particles", PARTICLES, dim=-2):
            other = traced(observed, make_inputs(), missing, None, lengths, mask=mask)
        close(other.nodes["x"]["log_prob"], trace.nodes["x"]["log_prob"].expand(PARTICLES, -1))


@pytest.mark.parametrize("view", [lambda model: model, nz.innovations, nz.unroll])
@pytest.mark.parametrize("emission", EMISSIONS)
def test_particles_are_a_plate_to_the_left(emission: str, view) -> None:
    model, targets = make_model(emission, num_layers=2), make_targets(emission)
    with pyro.plate("particles", PARTICLES, dim=-2):
        trace = traced(view(model), make_inputs(), targets, None, LENGTHS)
    out = returned(trace)
    assert trace.nodes["x"]["log_prob"].shape == (PARTICLES, BATCH)
    assert out.emission.batch_shape == (PARTICLES, BATCH, STEPS)
    assert out.state.shape == (2, PARTICLES, BATCH, UNITS)


@pytest.mark.parametrize("emission", EMISSIONS)
def test_without_targets_the_data_are_sampled(emission: str) -> None:
    model = make_model(emission)
    with pyro.plate("particles", PARTICLES, dim=-2):
        trace = traced(model, make_inputs())
    x = trace.nodes["x"]["value"]
    assert x.shape == (PARTICLES, *make_targets(emission).shape)
    assert not trace.nodes["x"]["is_observed"]
    close(trace.nodes["x"]["log_prob"], returned(trace).emission.log_prob(x).sum(-1))


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize("view", [lambda model: model, nz.innovations, nz.unroll, nz.noise_off])
def test_predictive(view, parallel: bool) -> None:
    model, inputs = make_model("bernoulli"), make_inputs()
    draws = Predictive(view(model), num_samples=6, parallel=parallel)(inputs)
    assert draws["x"].shape == (6, BATCH, STEPS, OUTPUTS)
    assert draws["z_1"].shape == (6, BATCH, STEPS, UNITS)


def test_predictive_from_posterior_samples() -> None:
    model, inputs = make_model("gaussian"), make_inputs()
    z = torch.randn(6, BATCH, STEPS, UNITS, dtype=torch.float64)
    draws = Predictive(model, {"z_1": z}, parallel=True, return_sites=("x", "z_1"))(inputs)
    close(draws["z_1"], z)
    assert draws["x"].shape == (6, BATCH, STEPS, OUTPUTS)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_size_scales_the_likelihood(lengths: Tensor | None) -> None:
    model, inputs, targets = make_model(), make_inputs(), make_targets("gaussian")
    batch = traced(model, inputs, targets, None, lengths)
    observed = given(model, {"z_1": batch.nodes["z_1"]["value"]})
    whole = traced(observed, inputs, targets, None, lengths, size=10 * BATCH)
    close(whole.nodes["x"]["log_prob_sum"], 10 * batch.nodes["x"]["log_prob_sum"])
    same = traced(observed, inputs, targets, None, lengths, size=BATCH)
    close(same.nodes["x"]["log_prob_sum"], batch.nodes["x"]["log_prob_sum"])


@pytest.mark.parametrize("noise", ["gaussian", "gamma:multiplicative"])
@pytest.mark.parametrize("cell", CELLS)
def test_views_of_a_whole_model_agree(cell: str, noise: str) -> None:
    model = make_model(cell=cell, noise=noise, num_layers=2)
    arguments = (make_inputs(), make_targets("gaussian"), None, LENGTHS)
    with pyro.plate("particles", PARTICLES, dim=-2):
        by_step = traced(nz.unroll(model), *arguments, size=9)
        paths = {name: by_step.nodes[name]["value"] for name in ("z_1", "z_2")}
        fused = traced(given(model, paths), *arguments, size=9)
        noises = {f"{name}_noise": fused.nodes[name]["fn"].innovate(path) for name, path in paths.items()}
        by_noise = traced(given(nz.innovations(model), noises), *arguments, size=9)
    close(by_step.log_prob_sum(), fused.log_prob_sum())
    for trace in (by_step, by_noise):
        close(trace.nodes["x"]["log_prob"], fused.nodes["x"]["log_prob"])
        pairs = zip(*(parts(returned(t).state) for t in (trace, fused)), strict=True)
        for actual, expected in pairs:
            close(actual, expected)


@pytest.mark.parametrize("cell", CELLS)
def test_carried_state_does_not_change_the_density_of_the_whole(cell: str) -> None:
    model, inputs, targets = make_model(cell=cell), make_inputs(steps=2 * STEPS), make_inputs(steps=2 * STEPS)
    targets = torch.cat([targets, targets], -1)
    whole = traced(model, inputs, targets)
    z, state, total = whole.nodes["z_1"]["value"], None, 0.0
    for window in (slice(0, STEPS), slice(STEPS, 2 * STEPS)):
        trace = traced(given(model, {"z_1": z[:, window]}), inputs[:, window], targets[:, window], state)
        state, total = returned(trace).state, total + trace.log_prob_sum()
    close(total, whole.log_prob_sum())


@pytest.mark.parametrize("cell", CELLS)
def test_language_model(cell: str) -> None:
    model, tokens = LanguageModel(WORDS, UNITS, 2, cell), make_tokens()
    out = model(tokens, tokens, None, LENGTHS)
    assert out.emission.batch_shape == (BATCH, STEPS)
    out = model(tokens, state=out.state)
    close(out.emission.probs.sum(-1), torch.ones(BATCH, STEPS), 1e-6)
    assert (model.emission.linear.bias == 0.0).all()


def test_language_model_forwards_its_options() -> None:
    spread = nz.Spread(0.4, learn=True)
    model = LanguageModel(WORDS, UNITS, 2, "gru", "gamma", spread, input_spread=0.2, tie_weights=True)
    assert model.rnn.spreads() == pytest.approx({"gamma_0": 0.2, "gamma_1": 0.4, "gamma_2": 0.4})
    assert (model.rnn.cell.name, model.rnn.noise.name, model.rnn.feedback) == ("gru", "gamma", True)
    assert not LanguageModel(WORDS, UNITS, feedback=False).rnn.feedback


def test_tied_weights_are_one_tensor() -> None:
    model, tokens = LanguageModel(WORDS, UNITS, tie_weights=True), make_tokens()
    assert model.emission.linear.weight is model.embedding.weight
    assert model.embedding.weight.abs().max() <= 0.1  # small enough for a softmax's weights
    assert len(list(model.parameters())) == len(list(LanguageModel(WORDS, UNITS).parameters())) - 1
    traced(model, tokens, tokens).log_prob_sum().backward()
    before = model.embedding.weight.clone()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not torch.equal(model.embedding.weight, before)
    assert model.emission.linear.weight is model.embedding.weight
    again = LanguageModel(WORDS, UNITS, tie_weights=True)
    again.load_state_dict(model.state_dict())
    assert again.emission.linear.weight is again.embedding.weight


def test_an_emission_instance() -> None:
    emission = Categorical(UNITS, OUTPUTS)
    assert SequenceModel(make_rnn(), emission).emission is emission


@pytest.mark.parametrize(
    ("emission", "output_size", "message"),
    [
        ("bernouli", OUTPUTS, "emission.*categorical.*did you mean 'bernoulli'"),
        ("bernoulli", None, "output_size.*bernoulli"),
        ("bernoulli", 0, "output_size.*0"),
        (Categorical(UNITS, OUTPUTS), OUTPUTS, "output_size=4.*instance"),
        (None, OUTPUTS, "emission|output_size"),
    ],
)
def test_wrong_emissions(emission: Any, output_size: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SequenceModel(make_rnn(), emission, output_size)


def test_layers_and_sizes_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="rnn must be a NoisyRNN, got LSTM"):
        SequenceModel(torch.nn.LSTM(3, 4), "gaussian", 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="vocabulary_size must be a positive integer, got 0"):
        LanguageModel(0, 4)
    with pytest.raises(ValueError, match="tie_weights must be True or False, got 'yes'"):
        LanguageModel(5, 4, tie_weights="yes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name must be the prefix of the sample sites, such as 'z', got ''"):
        NoisyRNN(3, 4, name="")


def test_compiled_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    validates = torch.distributions.Distribution._validate_args  # torch.compile turns it off for the process
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", validates)
    model = SequenceModel(torch.compile(NoisyRNN(2, 4), backend="eager"), "gaussian", 2)  # type: ignore[arg-type]
    assert model.rnn.hidden_size == 4


def test_tokens_of_any_integer_type() -> None:
    model, tokens = LanguageModel(7, 4, spread=0.0), torch.randint(7, (2, 3))
    expected = model(tokens, tokens).emission.log_prob(tokens)
    for dtype in (torch.uint8, torch.int16, torch.int32):
        assert torch.equal(model(tokens.to(dtype), tokens.to(dtype)).emission.log_prob(tokens.to(dtype)), expected)


def test_an_emission_for_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match=r"hidden_size|units"):
        SequenceModel(make_rnn(), Categorical(UNITS + 1, OUTPUTS))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"inputs": torch.zeros(STEPS, FEATURES)}, "inputs.*batch, time, features"),
        ({"targets": torch.zeros(BATCH, STEPS, OUTPUTS + 1)}, rf"targets.*{OUTPUTS}\).*{OUTPUTS + 1}"),
        ({"targets": torch.zeros(BATCH, STEPS)}, "targets"),
        ({"targets": torch.zeros(BATCH, STEPS + 1, OUTPUTS)}, "targets"),
        ({"targets": torch.zeros(1, STEPS, OUTPUTS)}, "targets"),
        ({"size": BATCH - 1}, rf"size.*at least.*{BATCH}.*{BATCH - 1}"),
        ({"size": BATCH + 0.5}, rf"size .* must be an integer of at least .*got {BATCH}.5"),
        ({"mask": torch.ones(BATCH, STEPS)}, rf"mask must be booleans of shape \(\.\.\., {BATCH}, {STEPS}\), got"),
        ({"mask": torch.ones(STEPS).bool()}, "mask must be booleans of shape"),
        ({"mask": True}, "mask must be booleans of shape .* got True"),
        (
            {"inputs": torch.zeros(0, STEPS, FEATURES), "targets": torch.zeros(0, STEPS, OUTPUTS)},
            "at least one sequence, got an empty batch",
        ),
        ({"lengths": torch.tensor([1, 2])}, "lengths"),
        ({"state": torch.zeros(1, 1, UNITS)}, "state"),
    ],
)
def test_wrong_calls(call: dict[str, Any], message: str) -> None:
    arguments = {"inputs": torch.zeros(BATCH, STEPS, FEATURES), "targets": torch.zeros(BATCH, STEPS, OUTPUTS)}
    model = make_model().float()
    with pytest.raises(ValueError, match=message):
        model(**(arguments | call))


@pytest.mark.parametrize("view", [lambda model: model, nz.innovations, nz.noise_off])
def test_empty_batches_are_refused(view) -> None:
    inputs, targets, tokens = make_inputs()[:0], make_targets("gaussian", 0), make_tokens()[:0]
    model = make_model()
    for program, guide, arguments in (
        (model, None, (inputs, targets)),
        (model, nz.guides.get("smoothing", model), (inputs, targets)),
        (LanguageModel(WORDS, UNITS), None, (tokens, tokens)),
    ):
        with pytest.raises(ValueError, match="at least one sequence, got an empty batch"):
            nz.PriorAsGuide_ELBO()(view(program), guide)(*arguments)


@pytest.mark.parametrize("size", [BATCH + 0.5, float(BATCH), "all", BATCH - 1, torch.tensor(2.0 * BATCH)])
def test_sizes_are_whole_numbers(size: Any) -> None:
    model, arguments = make_model(), (make_inputs(), make_targets("gaussian"))
    with pytest.raises(ValueError, match=r"size .* must be an integer of at least"):
        model(*arguments, size=size)
    assert traced(model, *arguments, size=np.int64(2 * BATCH)).nodes["x"]["scale"] == 2


@pytest.mark.parametrize("inputs", [torch.zeros(BATCH, STEPS), torch.zeros(STEPS, dtype=torch.long)])
def test_tokens_are_integers_with_a_batch(inputs: Tensor) -> None:
    with pytest.raises(ValueError, match="integer tokens"):
        LanguageModel(WORDS, UNITS)(inputs)


@pytest.mark.parametrize("particles", [None, PARTICLES])
def test_targets_out_of_range_are_refused(particles: int | None) -> None:
    model, tokens = LanguageModel(WORDS, UNITS, spread=0.0), make_tokens()
    program = model if particles is None else pyro.plate("particles", particles, dim=-2)(model)
    with pytest.raises(ValueError, match=rf"support, classes from 0 to {WORDS - 1}, got {WORDS} to {WORDS}; encode"):
        traced(program, tokens, torch.full_like(tokens, WORDS))


@pytest.mark.parametrize("wrong", [WORDS, -1, 10**6])
def test_tokens_out_of_range_are_refused(wrong: int) -> None:
    model, tokens = LanguageModel(WORDS, UNITS), make_tokens()
    tokens[0, 2] = wrong
    with pytest.raises(
        ValueError, match=rf"inputs must be tokens from 0 to {WORDS - 1}, got .*vocabulary of the model"
    ):
        model(tokens)
    with pytest.raises(ValueError, match=rf"from 0 to {WORDS - 1}"):
        nz.evaluate(model, nz.data.Stream(tokens.flatten().abs().clamp(max=10 * WORDS) + WORDS, 2, 3))


def test_sampled_weights_are_shared_by_all_sequences() -> None:
    model = make_model("gaussian")
    shape = model.rnn.weight_hh_l0.shape
    model.rnn.weight_hh_l0 = pyro.nn.PyroSample(
        pyro.distributions.Normal(torch.zeros(shape, dtype=torch.float64), 0.5).to_event(2)
    )
    arguments = (make_inputs(), make_targets("gaussian"), None, LENGTHS)
    with pyro.plate("particles", PARTICLES, dim=-2):
        trace = traced(model, *arguments)
    weight = trace.nodes["rnn.weight_hh_l0"]["value"]
    assert weight.shape == (PARTICLES, 1, *shape)
    for s in range(PARTICLES):
        values = {"rnn.weight_hh_l0": weight[s, 0], "z_1": trace.nodes["z_1"]["value"][s]}
        alone = traced(given(model, values), *arguments)
        close(alone.nodes["z_1"]["log_prob"], trace.nodes["z_1"]["log_prob"][s])
    assert not poutine.trace(nz.noise_off(model)).get_trace(*arguments).nodes["rnn.weight_hh_l0"]["is_observed"]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_ranges_of_the_published_initialization(cell: str, tied: bool) -> None:
    torch.manual_seed(0)
    spread = Spread(0.3, learn=True)
    model = LanguageModel(500, 64, num_layers=2, cell=cell, spread=spread, tie_weights=tied)
    gammas = model.rnn.spreads()
    initialize_as_published(model)
    ranges = {"embedding": 0.1, "emission": 0.1 if tied else 1 / 8, "rnn": 1 / 8}
    assert model.rnn.spreads() == gammas
    for name, parameter in model.named_parameters():
        if "bias" in name:
            assert not parameter.any(), name
        elif "weight" in name:
            bound = ranges[name.partition(".")[0]]
            # the largest of n >= 4096 uniform draws is below 0.99 of the bound with chance 0.99^4096 < 1e-17
            assert 0.99 * bound < parameter.abs().max() <= bound, name
            deviation = bound / math.sqrt(3)
            assert abs(parameter.mean()) < 5 * deviation / math.sqrt(parameter.numel()), name
    assert (model.emission.linear.weight is model.embedding.weight) == tied


def test_published_initialization_of_a_model_without_embedding() -> None:
    model = SequenceModel(NoisyRNN(88, 64), "bernoulli", 88)
    initialize_as_published(model)
    assert not model.emission.linear.bias.any()
    assert 0.99 / 8 < model.emission.linear.weight.abs().max() <= 1 / 8
