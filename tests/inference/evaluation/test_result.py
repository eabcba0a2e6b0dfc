"""Paired differences of two models, against exact likelihoods and the standard error of a paired t-test."""

import math
from dataclasses import replace

import pytest
import torch
from pyro import poutine

from noisin_pyro import LanguageModel, evaluate, innovations
from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference.evaluation.result import perplexity

STEPS, SEQUENCES = 3, 40


@pytest.fixture
def data(linear_gaussian) -> Sequences:
    inputs = torch.zeros(SEQUENCES, STEPS, 1).double()
    with torch.no_grad():
        x = poutine.trace(linear_gaussian()).get_trace(inputs).nodes["x"]["value"]
    return Sequences(inputs, x)


def test_difference_of_two_spreads_agrees_with_the_exact_likelihoods(linear_gaussian, exact_log_likelihood, data):
    one, two = (evaluate(linear_gaussian(spread=spread), data, "particle-filter", 4000) for spread in (1.0, 0.3))
    result = one.difference(two)
    exact = [-exact_log_likelihood(data.targets, spread) for spread in (1.0, 0.3)]
    difference = exact[0] - exact[1]
    # 4.9 standard errors of the noise: a false alarm in a million
    assert abs(result.nats_per_step - difference.mean().item() / STEPS) < 4.9 * result.monte_carlo_error
    paired = (difference.std() / SEQUENCES**0.5 / STEPS).item()
    assert result.standard_error == pytest.approx(paired, rel=0.05)
    # pairing reduces the error
    assert result.standard_error < 0.7 * math.hypot(one.standard_error, two.standard_error)
    assert one.totals is not None and one.lengths is not None
    assert one.totals.shape == one.lengths.shape == (SEQUENCES,)
    assert result.monte_carlo_error == math.hypot(one.monte_carlo_error, two.monte_carlo_error)


def test_standard_error_of_padded_sequences_is_that_of_a_ratio(linear_gaussian, data):
    lengths = torch.randint(1, STEPS + 1, (SEQUENCES,))
    padded = Sequences(data.inputs, data.targets, lengths)
    one, two = (evaluate(linear_gaussian(spread=spread), padded, "particle-filter", 40) for spread in (1.0, 0.3))
    assert one.totals is not None and two.totals is not None
    nats = two.totals - one.totals
    result = one.difference(two)
    assert result.nats_per_step == pytest.approx((nats.sum() / lengths.sum()).item())
    # the jackknife of a ratio of sums agrees with its linearization up to terms of order 1/N
    left_out = (nats.sum() - nats) / (lengths.sum() - lengths)
    jackknife = ((SEQUENCES - 1) / SEQUENCES * (left_out - left_out.mean()).square().sum()).sqrt()
    assert result.standard_error == pytest.approx(jackknife.item(), rel=0.1)


def test_difference_of_a_model_and_itself_is_zero(linear_gaussian, data):
    one = evaluate(linear_gaussian(spread=0.0), data)
    result = one.difference(one)
    assert (result.nats_per_step, result.standard_error, result.monte_carlo_error) == (0.0, 0.0, 0.0)
    noisy = evaluate(linear_gaussian(), data, "particle-filter", 40)
    assert noisy.difference(one).nats_per_step == pytest.approx(noisy.nats_per_step - one.nats_per_step)


def test_refusals(linear_gaussian, data):
    model = linear_gaussian()
    estimate = evaluate(model, data, "particle-filter", 40)
    bound = evaluate(innovations(model), data, "importance", 30)
    with pytest.raises(ValueError, match="of kinds 'bound' and 'estimate'"):
        bound.difference(estimate)
    fewer = Sequences(data.inputs[:5], data.targets[:5])
    with pytest.raises(ValueError, match=r"different data \(40 and 5 sequences, with 120 and 15 steps, targets"):
        estimate.difference(evaluate(model, fewer, "particle-filter", 40))
    with pytest.raises(ValueError, match="read from a file"):
        estimate.difference(replace(estimate, totals=None))


class TestSameData:
    """A difference is over the same targets, scored at the same steps."""

    def test_other_data_of_the_same_shape_are_refused(self, linear_gaussian, data):
        model = linear_gaussian(spread=0.0)
        one = evaluate(model, data)
        swapped = Sequences(data.inputs, data.targets.flip(0))
        mask = torch.ones(SEQUENCES, STEPS).bool()
        mask[0, 0] = False
        other = mask.clone()
        other[0] = torch.tensor([True, True, False])
        masked = [Sequences(data.inputs, data.targets, mask=each) for each in (mask, other)]
        changed = Sequences(data.inputs, data.targets + 1e-3)
        for each in (swapped, masked[0], changed):
            with pytest.raises(ValueError, match=r"results on different data .* evaluate both models on the same data"):
                one.difference(evaluate(model, each))
        with pytest.raises(ValueError, match="results on different data"):  # as many steps, but not the same
            evaluate(model, masked[0]).difference(evaluate(model, masked[1]))

    def test_batches_precision_and_inputs_do_not_matter(self, linear_gaussian, data):
        model = linear_gaussian(spread=0.0)
        one = evaluate(model, data, batch_size=7)
        single = evaluate(linear_gaussian(spread=0.0).float(), data.to("cpu", torch.float32))
        assert one.difference(single).nats_per_step == pytest.approx(0.0, abs=1e-5)
        assert one.difference(evaluate(model, Sequences(data.inputs + 1, data.targets))).nats_per_step == 0.0
        by_filter = evaluate(linear_gaussian(), data, "particle-filter", 40, batch_size=7)
        assert by_filter.fingerprint == one.fingerprint

    def test_texts(self):
        model, tokens = LanguageModel(5, 3, spread=0.0), torch.arange(1200) % 5
        one = evaluate(model, Stream(tokens, 3, 20))
        assert one.fingerprint == evaluate(model, Stream(tokens, 7, 35)).fingerprint
        assert one.difference(evaluate(model, Stream(tokens, 7, 35))).nats_per_step == pytest.approx(0.0, abs=0.05)
        with pytest.raises(ValueError, match=r"different data \(3 and 3 sequences, with 1200 and 1200 steps"):
            one.difference(evaluate(model, Stream((tokens + 1) % 5, 3, 20)))


def test_perplexity_does_not_overflow():
    assert perplexity(2.0) == pytest.approx(math.e**2)
    assert perplexity(1e4) == math.inf
