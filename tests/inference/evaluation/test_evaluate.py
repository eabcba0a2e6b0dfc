"""Evaluation: exact scores of deterministic models, averaged probabilities of noisy ones, and standard errors."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta
from pyro.nn import PyroSample
from torch import nn
from torch.nn import functional as F

from noisin_pyro import (
    LanguageModel,
    NoisyRNN,
    SequenceModel,
    Spread,
    evaluate,
    generate,
    innovations,
    noise_off,
    unroll,
)
from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference.evaluation.predictive import average
from noisin_pyro.recurrence.matmul import has_bfloat16

TOKENS = torch.randint(7, (101,), generator=torch.Generator().manual_seed(1))


def cross_entropy_by_torch(model: LanguageModel, tokens: torch.Tensor) -> float:
    """Nats per token of the network without noise, computed by torch's layers on the whole text."""
    rnn = nn.RNN(4, 4, batch_first=True).double()
    rnn.load_state_dict({name: p for name, p in model.rnn.state_dict().items() if not name.startswith("spread")})
    inputs = torch.cat([tokens.new_zeros(1), tokens[:-1]])
    scores = model.emission.linear(rnn(model.embedding(inputs[None]))[0])
    return F.cross_entropy(scores[0], tokens).item()


class TestMean:
    @pytest.mark.parametrize("spread", [0.0, 0.5])
    def test_is_the_underlying_network(self, spread):
        model = LanguageModel(7, 4, spread=spread).double()
        result = evaluate(model, Stream(TOKENS, batch_size=1, window=9))
        assert result.nats_per_step == pytest.approx(cross_entropy_by_torch(model, TOKENS), abs=1e-12)
        assert result.perplexity == pytest.approx(math.exp(result.nats_per_step))
        assert result.kind == ("predictor" if spread else "exact")
        assert (result.num_steps, result.num_samples, result.monte_carlo_error) == (101, 0, 0.0)

    def test_each_column_starts_from_a_zero_state(self):
        model = LanguageModel(7, 4, spread=0.0, cell="lstm").double()
        result = evaluate(model, Stream(TOKENS, batch_size=4, window=6))
        total, start = 0.0, 0
        for length in (26, 25, 25, 25):  # 101 tokens in 4 columns
            before = TOKENS[start - 1] if start else torch.tensor(0)
            column = TOKENS[start : start + length]
            out = model(torch.cat([before.reshape(1), column[:-1]])[None], column[None])
            total -= out.emission.log_prob(column[None]).sum().item()
            start += length
        assert result.nats_per_step == pytest.approx(total / 101, abs=1e-12)

    @pytest.mark.parametrize("batch_size", [None, 2])
    def test_padded_sequences_are_scored_like_single_sequences(self, batch_size):
        model = SequenceModel(NoisyRNN(3, 4, cell="gru", spread=0.0), "bernoulli", 3).double()
        lengths = torch.tensor([5, 2, 4])
        inputs, targets = torch.randn(3, 5, 3).double(), torch.randint(2, (3, 5, 3)).double()
        result = evaluate(model, Sequences(inputs, targets, lengths), batch_size=batch_size)
        rows = []
        for x, y, n in zip(inputs, targets, lengths, strict=True):
            rows.append(-model(x[None, :n]).emission.log_prob(y[None, :n]).sum())
        rows = torch.stack(rows).detach()
        assert result.nats_per_step == pytest.approx(rows.sum().item() / 11, abs=1e-12)
        residuals = rows - result.nats_per_step * lengths.double()
        assert result.standard_error == pytest.approx((residuals.square().sum() * 3 / 2).sqrt().item() / 11, abs=1e-12)


class TestEnsemble:
    @pytest.mark.slow
    def test_averages_probabilities_step_by_step(self, linear_gaussian, exact_log_likelihood):
        # one step: the average over noise is the marginal likelihood itself
        model = linear_gaussian()
        x = torch.tensor([[[0.5, -1.0]], [[2.0, 0.3]], [[-1.0, -1.0]]]).double()
        data = Sequences(torch.zeros(3, 1, 1).double(), x, torch.ones(3).long())
        result = evaluate(model, data, method="ensemble", num_samples=4000)
        truth = -exact_log_likelihood(x, 1.0).mean().item()
        assert result.kind == "predictor"
        # false-alarm rate 6e-7 (5 standard errors)
        assert abs(result.nats_per_step - truth) < 5 * result.monte_carlo_error
        assert 0 < result.monte_carlo_error < 0.02

    @pytest.mark.slow
    def test_error_matches_repeated_evaluations(self):
        model = LanguageModel(7, 4, spread=1.0).double()
        data = Stream(TOKENS, batch_size=5, window=7)
        result = [evaluate(model, data, method="ensemble", num_samples=20) for _ in range(40)]
        spread = torch.tensor([f.nats_per_step for f in result]).std().item()
        stated = sum(f.monte_carlo_error for f in result) / len(result)
        # the standard deviation of 40 has a relative error of 11 %; 3 of these: false-alarm rate 0.3 %, at a fixed seed
        assert stated == pytest.approx(spread, rel=0.33)

    def test_error_equals_an_explicit_jackknife(self):
        runs = torch.tensor([[-1.0, -2.0], [-3.0, -0.5], [-0.1, -4.0]], dtype=torch.float64)
        left_out = [(runs[[i for i in range(3) if i != s]].exp().mean(0)).log().sum() for s in range(3)]
        left_out = torch.stack(left_out)
        expected = (2 / 3 * (left_out - left_out.mean()).square().sum()).sqrt() / 2
        scores, error = average(runs)
        assert error.item() / 2 == pytest.approx(expected.item(), abs=1e-12)
        torch.testing.assert_close(scores, runs.exp().mean(0).log(), rtol=0, atol=1e-12)

    def test_deterministic_model_is_exact(self):
        model = LanguageModel(7, 4, spread=0.0).double()
        data = Stream(TOKENS, batch_size=5, window=7)
        result = evaluate(model, data, method="ensemble", num_samples=3)
        assert (result.kind, result.monte_carlo_error) == ("exact", 0.0)
        assert result.nats_per_step == evaluate(model, data).nats_per_step

    def test_leave_one_out_is_accurate_if_one_run_dominates(self):
        _, error = average(torch.tensor([[-1.0], [-300.0], [-300.0]], dtype=torch.float64))
        left_out = torch.tensor([-300.0, -1 - math.log(2), -1 - math.log(2)], dtype=torch.float64)
        expected = (2 / 3 * (left_out - left_out.mean()).square().sum()).sqrt().item()
        assert error.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.skipif(not has_bfloat16(), reason="this processor has no bfloat16")
@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
class TestPrecision:
    """With products in bfloat16 too, a deterministic model has one exact score, and noisy ones one likelihood."""

    def model(self, cell: str, spread: float) -> LanguageModel:
        model = LanguageModel(50, 32, 2, cell, spread=spread, matmul_precision="bfloat16")
        with torch.no_grad():
            for parameter in [*model.rnn.parameters(), model.emission.linear.weight]:
                parameter.mul_(4)
        return model

    def test_all_methods_agree(self, cell: str) -> None:
        model, data = self.model(cell, 0.0), Stream(torch.randint(50, (500,)), 5, 35)
        result = [evaluate(model, data, method) for method in ("mean", "ensemble", "importance", "particle-filter")]
        assert [each.kind for each in result] == ["exact"] * 4
        assert len({each.nats_per_step for each in result}) == 1

    def test_tiny_noise_changes_little(self, cell: str) -> None:
        data = Stream(torch.randint(50, (500,)), 5, 35)
        model = self.model(cell, 1e-6)
        mean, by_filter = evaluate(model, data), evaluate(model, data, "particle-filter", num_samples=4)
        # with products in float32 the filter would differ by more than 1e-3
        assert by_filter.nats_per_step == pytest.approx(mean.nats_per_step, abs=5e-4)


class TestLogProbs:
    def test_of_a_text_are_in_order(self):
        model = LanguageModel(7, 4, spread=0.5).double()
        data = Stream(TOKENS, batch_size=4, window=6)
        assert evaluate(model, data).log_probs is None
        result = evaluate(model, data, log_probs=True)
        assert result == evaluate(model, data) and result.log_probs is not None
        expected = []
        for length in (26, 25, 25, 25):  # 101 tokens in 4 columns, each from a zero state
            start = sum(map(len, expected))
            before = torch.cat([TOKENS.new_zeros(1), TOKENS])[start : start + length]
            out = noise_off(model)(before[None])
            expected.append(out.emission.log_prob(TOKENS[None, start : start + length])[0].detach())
        torch.testing.assert_close(result.log_probs, torch.cat(expected), rtol=0, atol=1e-12)

    @pytest.mark.parametrize("batch_size", [None, 2])
    def test_of_sequences_are_padded_with_zeros(self, batch_size):
        model = SequenceModel(NoisyRNN(3, 4, spread=0.0), "bernoulli", 3).double()
        lengths = torch.tensor([2, 5, 4])
        inputs, targets = torch.randn(3, 5, 3).double(), torch.randint(2, (3, 5, 3)).double()
        result = evaluate(model, Sequences(inputs, targets, lengths), batch_size=batch_size, log_probs=True).log_probs
        expected = model(inputs).emission.log_prob(targets) * (torch.arange(5) < lengths[:, None])
        torch.testing.assert_close(result, expected.detach(), rtol=0, atol=1e-12)

    def test_sum_to_the_ensemble(self):
        model, data = LanguageModel(7, 4, spread=0.5), Stream(TOKENS, batch_size=4, window=6)
        result = evaluate(model, data, method="ensemble", num_samples=3, log_probs=True)
        assert result.log_probs is not None
        assert result.nats_per_step == pytest.approx(-result.log_probs.mean().item(), abs=1e-12)


class TestRefusals:
    def test_options(self):
        model, data = LanguageModel(7, 4), Stream(TOKENS, batch_size=5, window=7)
        with pytest.raises(ValueError, match=r"method must be one of mean, .*, got 'median'; did you mean 'mean'\?"):
            evaluate(model, data, method="median")
        with pytest.raises(ValueError, match="num_samples=3 has no effect on method='mean'"):
            evaluate(model, data, num_samples=3)
        with pytest.raises(ValueError, match=r"num_samples for an ensemble .* must be an integer of at least 2"):
            evaluate(model, data, method="ensemble", num_samples=1)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"method": "ensemble", "guide": lambda *_, **__: None}, "guide has no effect on method='ensemble'.*'impo"),
            ({"method": "importance", "islands": 2}, "islands has no effect on method='importance'.*'particle-filter'"),
            ({"method": "importance", "threshold": 0.5}, "threshold has no effect on method='importance'"),
            (
                {"method": "importance", "num_samples": 0},
                "num_samples for importance must be .* integer, got 0",
            ),
            (
                {"method": "importance", "num_samples": 2.5},
                "num_samples for importance must be .* integer, got 2.5",
            ),
            (
                {"method": "importance", "guide": lambda *_, **__: None, "log_probs": True},
                r"log_probs: a guide conditions on",
            ),
            (
                {"method": "importance", "guide": AutoDelta(innovations(LanguageModel(7, 4)))},
                "AutoDelta is a point estimate without a density",
            ),
            ({"method": "particle-filter", "threshold": 1.5}, "threshold must be from 0 .* to 1, got 1.5"),
            ({"method": "particle-filter", "threshold": "0.5"}, "threshold must be from 0 .* to 1, got '0.5'"),
            ({"method": "particle-filter", "num_samples": 10}, "num_samples must be a multiple of 4, since .* got 10"),
            ({"method": "particle-filter", "islands": 0}, "islands must be a positive integer, got 0"),
        ],
    )
    def test_options_of_one_method(self, options, message):
        model, data = LanguageModel(7, 4), Stream(TOKENS, batch_size=5, window=7)
        with pytest.raises(ValueError, match=message):
            evaluate(model, data, **options)

    def test_mean_of_a_model_with_sampled_weights(self):
        model = LanguageModel(7, 4, spread=0.0)
        model.rnn.weight_hh_l0 = PyroSample(dist.Normal(0.0, 1.0).expand([4, 4]).to_event(2))
        with pytest.raises(ValueError, match=r"method='mean' needs fixed weights, but 'rnn.weight_hh_l0' is sampled"):
            evaluate(model, Stream(TOKENS, batch_size=5, window=7))


class TestHandlers:
    """Handlers around a model, under which a score would not be what its kind says."""

    DATA = Stream(TOKENS, batch_size=5, window=21)

    @pytest.mark.parametrize("method", ["mean", "ensemble", "importance", "particle-filter"])
    @pytest.mark.parametrize("options", [{}, {"hide": ["z_1"]}])
    def test_hidden_sites(self, options, method):
        program = innovations(poutine.block(LanguageModel(7, 4), **options))
        with pytest.raises(ValueError, match=r"model is in poutine\.block, .*pass the model without it"):
            evaluate(program, self.DATA, method)

    def test_replayed_values_are_no_samples_of_the_prior(self):
        model, batch = LanguageModel(7, 4), next(iter(self.DATA.batches()))
        program = poutine.replay(model, trace=poutine.trace(model).get_trace(batch.inputs, batch.targets))
        with pytest.raises(ValueError, match=r"poutine\.replay gives values, .*would not be a bound"):
            evaluate(program, self.DATA, "importance")

    def test_a_model_that_observes_nothing(self):
        with pytest.raises(ValueError, match=r"it observes no site; .*without poutine\.uncondition"):
            evaluate(poutine.uncondition(LanguageModel(7, 4)), self.DATA, "importance")

    def test_mean_of_noise_that_is_conditioned_on(self):
        model = LanguageModel(7, 4).double()
        noise = torch.randn(5, 21, 4).double()
        with pytest.raises(ValueError, match=r"turns the noise off, but 'z_1_noise' is conditioned on; .*'ensemble'"):
            evaluate(pyro.condition(innovations(model), {"z_1_noise": noise}), self.DATA, "mean")
        given = pyro.condition(model, {"z_1": noise})  # states are used, the noise is not
        scores = [evaluate(given, self.DATA, method).nats_per_step for method in ("mean", "ensemble")]
        assert scores[0] == pytest.approx(scores[1])


class TestViews:
    @pytest.mark.parametrize("view", [innovations, unroll])
    def test_mean_is_the_same_in_every_view(self, view):
        model, data = LanguageModel(7, 4, spread=1.0).double(), Stream(TOKENS, batch_size=5, window=7)
        assert evaluate(view(model), data).nats_per_step == pytest.approx(
            evaluate(model, data).nats_per_step, abs=1e-12
        )

    def test_mean_supports_a_spread_with_a_prior(self):
        data = Stream(TOKENS, batch_size=5, window=7)
        model = LanguageModel(7, 4, spread=Spread(prior=dist.LogNormal(0.0, 1.0)))
        assert evaluate(model, data).nats_per_step == evaluate(model, data).nats_per_step


@pytest.mark.parametrize("method", ["mean", "ensemble", "importance"])
def test_a_program_that_returns_a_tensor_gets_told_what_is_needed(method: str) -> None:
    model = LanguageModel(7, 4)

    def program(*args: Any, **kwargs: Any) -> torch.Tensor:
        return model(*args, **kwargs).emission.logits

    with pytest.raises(ValueError, match=r"its emission and its state, got a Tensor; end it with return .*Output\("):
        evaluate(program, Stream(TOKENS, batch_size=2, window=9), method)
    with pytest.raises(ValueError, match="its emission and its state, got a Tensor"):
        generate(program, 3)
