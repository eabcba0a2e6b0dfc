"""Importance sampling and the particle filter are unbiased, compared with exact likelihoods."""

from typing import Any

import pytest
import torch
from torch import Tensor

from noisin_pyro import LanguageModel, NoisyRNN, SequenceModel, evaluate, innovations, unroll
from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference import blocks
from noisin_pyro.models import CELLS

from ..programs import likelihood_by_enumeration

METHODS = ["importance", "particle-filter"]
LENGTHS = torch.tensor([3, 1, 2])
COPIES = 1500


def sequence_model(cell: str = "tanh", **options: Any) -> SequenceModel:
    """Two units with noise of ±1 times a spread for which the likelihoods of a step differ severalfold."""
    rnn = NoisyRNN(1, 2, cell=cell, noise="bernoulli", **{"spread": 1.5, **options})
    model = SequenceModel(rnn, "gaussian", 2).double()
    with torch.no_grad():
        model.emission.linear.weight.copy_(torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    return model


def three_sequences() -> tuple[Tensor, Tensor]:
    return torch.randn(3, 3, 1).double(), 1.5 * torch.randn(3, 3, 2).double()


def one_island(method: str) -> dict[str, int]:
    return {"num_samples": 4} | ({"islands": 1} if method == "particle-filter" else {})


def ratios(model: SequenceModel, method: str, lengths: Tensor = LENGTHS, batch_size: int | None = None) -> Tensor:
    """p̂(x)/p(x) of three sequences, with p̂(x) by four samples or particles, repeated: ``(COPIES, 3)``."""
    inputs, targets = three_sequences()
    rows = zip(inputs, targets, lengths.tolist(), strict=True)
    exact = torch.stack([likelihood_by_enumeration(model, x[:n], y[:n]) for x, y, n in rows])
    data = Sequences(inputs.repeat(COPIES, 1, 1), targets.repeat(COPIES, 1, 1), lengths.repeat(COPIES))
    result = evaluate(model, data, method, batch_size=batch_size, log_probs=True, **one_island(method))
    assert result.log_probs is not None
    totals = result.log_probs.sum(1)
    assert result.nats_per_step == pytest.approx(-totals.sum().item() / data.num_steps, abs=1e-12)
    return (totals.reshape(COPIES, 3) - exact).exp()


@pytest.mark.parametrize(("method", "num_samples"), [("importance", 100), ("particle-filter", 40)])
def test_the_estimated_bias_is_that_against_exact_likelihoods(method: str, num_samples: int) -> None:
    """Four standard errors of the mean over copies are allowed, and a tenth of the bias for terms of higher order."""
    model, (inputs, targets) = sequence_model(), three_sequences()
    rows = zip(inputs, targets, LENGTHS.tolist(), strict=True)
    exact = torch.stack([likelihood_by_enumeration(model, x[:n], y[:n]) for x, y, n in rows])
    copies = 4 * COPIES
    data = Sequences(*(part.repeat(copies, 1, 1) for part in (inputs, targets)), LENGTHS.repeat(copies))
    result = evaluate(model, data, method, num_samples=num_samples)
    assert result.totals is not None
    bias = exact.repeat(copies) - result.totals
    error = 4 * bias.std() * len(bias) ** 0.5 / data.num_steps
    measured = bias.sum().item() / data.num_steps
    assert error < 0.25 * measured
    assert result.monte_carlo_bias == pytest.approx(measured, abs=float(error) + 0.1 * measured)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cell", CELLS)
def test_likelihoods_of_padded_sequences_are_unbiased(method, cell, assert_mean):
    assert_mean(ratios(sequence_model(cell), method), 1.0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "options",
    [{"num_layers": 2}, {"num_layers": 2, "spread": [1.5, 0.0]}, {"input_spread": 1.0}, {"feedback": False}],
    ids=str,
)
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_likelihoods_of_every_kind_of_network_are_unbiased(method, cell, options, assert_mean):
    assert_mean(ratios(sequence_model(cell, **options), method), 1.0)


@pytest.mark.parametrize("method", METHODS)
def test_likelihoods_are_unbiased_for_small_blocks(method, assert_mean, monkeypatch):
    monkeypatch.setattr(blocks, "MAX_NUMEL", {"importance": 2, "particle-filter": 8000}[method])
    assert_mean(ratios(sequence_model("lstm"), method, batch_size=1000), 1.0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cell", CELLS)
def test_columns_of_a_stream_are_sequences(method, cell):
    model = LanguageModel(5, 2, cell=cell, noise="bernoulli", spread=1.5).double()
    tokens = torch.tensor([3, 1, 4, 1, 0, 2, 2, 3, 4, 4, 0])  # a column of six and one of five
    before = torch.cat([torch.tensor([0]), tokens])
    columns = [slice(0, 6), slice(6, 11)]
    exact = sum(likelihood_by_enumeration(model, before[each], tokens[each]) for each in columns)
    islands = {"islands": 40} if method == "particle-filter" else {}
    for window in (2, 4, 50):
        data = Stream(tokens, batch_size=2, window=window)
        result = evaluate(model, data, method, num_samples=20_000, log_probs=True, **islands)
        assert 0 < result.monte_carlo_error < 0.01
        # false-alarm rate 3e-6 at 40 islands (5.5 standard errors), at a fixed seed
        assert abs(result.nats_per_step + exact.item() / 11) < 5.5 * result.monte_carlo_error
        assert result.log_probs.shape == (11,)
        assert result.nats_per_step == pytest.approx(-result.log_probs.mean().item(), abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_log_prob_of_the_last_step_is_the_difference_of_log_likelihoods(method, assert_mean):
    # log p̂(x_3 | x_1, x_2): by many samples it is the difference of two exact likelihoods
    model, (inputs, targets) = sequence_model(), three_sequences()
    exact = [
        torch.stack([likelihood_by_enumeration(model, x[:n], y[:n]) for x, y in zip(inputs, targets, strict=True)])
        for n in (2, 3)
    ]
    result = evaluate(model, Sequences(inputs, targets), method, num_samples=40_000, log_probs=True)
    torch.testing.assert_close(result.log_probs[:, 2], exact[1] - exact[0], rtol=0, atol=0.05)


@pytest.mark.parametrize("noise", ["gaussian", "gamma:multiplicative", "dirichlet", "beta:native", "poisson:native"])
def test_importance_and_particle_filter_agree_for_every_family(noise):
    rnn = NoisyRNN(1, 3, num_layers=2, cell="sigmoid", noise=noise, spread=0.6)
    model, (inputs, targets) = SequenceModel(rnn, "gaussian", 2).double(), three_sequences()
    data = Sequences(inputs, targets, LENGTHS)
    by_weights = evaluate(model, data, "importance", num_samples=20_000)
    by_steps = evaluate(model, data, "particle-filter", num_samples=20_000, islands=40)
    error = (by_weights.monte_carlo_error**2 + by_steps.monte_carlo_error**2) ** 0.5
    # false-alarm rate 6e-7 (5 standard errors)
    assert 0 < error < 0.01 and abs(by_weights.nats_per_step - by_steps.nats_per_step) < 5 * error
    assert by_weights.pareto_k < 0.7


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("view", [unroll, innovations])
def test_every_view_has_the_same_likelihood(method, view):
    model, (inputs, targets) = sequence_model("gru"), three_sequences()
    data = Sequences(inputs, targets, LENGTHS)
    result = [evaluate(each, data, method, num_samples=8000) for each in (model, view(model))]
    # false-alarm rate 6e-7 (5 standard errors) but for few islands, at a fixed seed
    error = (result[0].monte_carlo_error ** 2 + result[1].monte_carlo_error ** 2) ** 0.5
    assert abs(result[0].nats_per_step - result[1].nats_per_step) < 5 * error


@pytest.mark.parametrize("method", METHODS)
def test_error_matches_repeated_evaluations(method):
    model, (inputs, targets) = sequence_model(), three_sequences()
    data = Sequences(inputs.repeat(10, 1, 1), targets.repeat(10, 1, 1))
    result = [evaluate(model, data, method, num_samples=40) for _ in range(60)]
    spread = torch.tensor([f.nats_per_step for f in result]).std().item()
    stated = torch.tensor([f.monte_carlo_error for f in result]).square().mean().sqrt().item()
    # the standard deviation of 60 has a relative error of 9 %; 3 of these: false-alarm rate 0.3 %, at a fixed seed
    assert stated == pytest.approx(spread, rel=0.28)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("samples", [None, 1])
def test_deterministic_model_is_exact(method, samples):
    model = LanguageModel(5, 4, cell="lstm", spread=0.0).double()
    data = Stream(torch.randint(5, (23,)), batch_size=3, window=4)
    islands = {"islands": 1} if (method, samples) == ("particle-filter", 1) else {}
    result = evaluate(model, data, method, num_samples=samples, log_probs=True, **islands)
    mean = evaluate(model, data, log_probs=True)
    assert (result.kind, result.monte_carlo_error, result.num_samples) == ("exact", 0.0, 0)
    assert (result.pareto_k, result.effective_samples, result.resamplings) == (None, None, None)
    assert result.nats_per_step == pytest.approx(mean.nats_per_step, abs=1e-12)
    torch.testing.assert_close(result.log_probs, mean.log_probs, rtol=0, atol=1e-12)
