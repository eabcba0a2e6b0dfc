"""Scores of forecasts against closed forms, and calibration on simulated data."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from pyro import poutine
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro.data import Sequences, Stream, from_arrays
from noisin_pyro.inference import crps, forecast_scores
from noisin_pyro.inference.scores import scored_lengths
from noisin_pyro.models import Gaussian, Scaled

from ..small_layers import close
from .test_forecasting import HORIZON, NAN, kalman, linear_gaussian


@pytest.mark.parametrize("x", [-1.5, 0.0, 2.0])
def test_crps_of_a_normal(x: float) -> None:
    """The mean over 20,000 sets of 4 samples is the closed form; five standard errors: false-alarm rate 6e-7."""
    y, normal = torch.tensor(x).double(), torch.distributions.Normal(0.0, 1.0)
    exact = y * (2 * normal.cdf(y) - 1) + 2 * normal.log_prob(y).exp() - 1 / math.sqrt(math.pi)
    samples = 3 + 2 * torch.randn(4, 20_000, generator=torch.Generator().manual_seed(0)).double()
    scores = crps(samples, (3 + 2 * y).expand(20_000))
    assert abs(scores.mean() - 2 * exact) < 5 * scores.std() / 20_000**0.5


def test_crps_equals_its_definition() -> None:
    samples, x = torch.randn(6, 3).double(), torch.randn(3).double()
    pairs = (samples[:, None] - samples).abs().sum((0, 1)) / (6 * 5)
    close(crps(samples, x), (samples - x).abs().mean(0) - pairs / 2)
    with pytest.raises(ValueError, match="number of samples must be an integer of at least 2, got 1"):
        crps(samples[:1], x)


def simulated(model: nz.SequenceModel, count: int, steps: int, seed: int) -> Tensor:
    torch.manual_seed(seed)
    with torch.no_grad(), poutine.block():
        nodes: Any = poutine.trace(model).get_trace(torch.zeros(count, steps, 1).double()).nodes
    return nodes["x"]["value"]


def test_intervals_have_their_coverage_and_log_scores_are_the_kalman_filters() -> None:
    """Of 400 sequences that the model has simulated, with a third of the history missing.

    Coverage is within 4.5 standard errors of each of three probabilities: the false-alarm rate is 2e-5 together. The
    log score is compared with the exact one sequence by sequence, at five standard errors of the mean difference, and
    0.005 a step for its bias at 400 samples.
    """
    model, steps = linear_gaussian(1), 8 + HORIZON
    x = simulated(model, 400, steps, seed=1)
    mask = (torch.rand(400, steps) < 0.7) | (torch.arange(steps) >= 8)
    data = Sequences(torch.zeros(400, steps, 1).double(), x, mask=mask)
    result = forecast_scores(model, data, HORIZON, num_samples=400, seed=0)
    assert (result.num_values, result.num_sequences) == (400 * HORIZON * 2, 400)
    for level in (0.5, 0.8, 0.95):
        error = result.standard_errors[f"coverage {level:g}"]
        assert abs(result.coverage[level] - level) < 4.5 * error and error < 0.02
    exact = []
    for row, seen in zip(x, mask, strict=True):
        _, means, covariances = kalman(row.masked_fill(~seen.unsqueeze(-1), NAN)[:8])
        exact.append(-torch.distributions.MultivariateNormal(means, covariances).log_prob(row[8:]).sum())
    difference = result.totals["log_score"][:, 0] - torch.stack(exact)
    assert abs(difference.mean()) < 5 * difference.std() / 400**0.5 + 0.005 * HORIZON


def counter(emission: Any = None) -> nz.SequenceModel:
    """Each x is the one before plus 1."""
    rnn = nz.NoisyRNN(1, 1, cell="identity", spread=1e-6)
    model = nz.SequenceModel(rnn, emission or Gaussian(1, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        rnn.weight_ih_l0.fill_(1.0)
        rnn.bias_ih_l0.fill_(1.0)
        model.emission.linear.weight.fill_(1.0)
        model.emission.scale = torch.tensor([1e-6])
    return model


def test_errors_of_a_forecast_that_is_known() -> None:
    x = torch.tensor([[1.0, 3.0, 5.0, 7.0, 12.0, 8.0], [2.0, 1.0, 0.0, 2.0, 3.0, 0.0]]).unsqueeze(-1)
    inputs = torch.nn.functional.pad(x[:, :-1], (0, 0, 1, 0))
    data = Sequences(inputs, x, torch.tensor([6, 5]))
    result = forecast_scores(counter(), data, 2, num_samples=10, seed=0)
    # forecasts 8, 9 after 1, 3, 5, 7, whose naive error is 2; and 1, 2 after 2, 1, 0, whose naive error is 1
    assert result.crps == pytest.approx((4 + 1 + 1 + 1) / 4, abs=1e-3)
    assert result.mase == pytest.approx((2 + 0.5 + 1 + 1) / 4, abs=1e-3)
    assert set(result.coverage.values()) == {0.0}
    # a season of two steps: naive errors 4 and 2
    assert forecast_scores(counter(), data, 2, season=2, num_samples=10).mase == pytest.approx(2.25 / 4, abs=1e-3)
    assert forecast_scores(counter(), data, 2, season=9, num_samples=10).mase is None
    assert "crps" in str(result) and "± " in str(result)


def series_model(data: Any) -> nz.SequenceModel:
    torch.manual_seed(0)
    scaling = data.layout.value_scaling
    return nz.SequenceModel(nz.NoisyRNN(data.layout.input_size, 3), Scaled(Gaussian(3, 1), scaling.loc, scaling.scale))


def test_a_rolling_origin_is_the_sum_of_its_origins() -> None:
    values = [np.random.default_rng(i).normal(size=9 - i) for i in range(3)]
    values[0][[2, 7]] = NAN
    covariates = [np.arange(float(len(each))) for each in values]
    data = from_arrays(values, covariates, dtype=torch.float64)
    model, options = series_model(data).double(), {"num_samples": 20, "missing": "draw"}
    result = forecast_scores(model, data, 2, origins=3, stride=1, seed=5, **options)
    parts = [forecast_scores(model, data.until(data.lengths - k), 2, seed=5 + k, **options) for k in range(3)]
    for name, total in result.totals.items():
        close(total, sum(part.totals[name] for part in parts))
    assert result.num_values == 3 * 6 - 2 and result.num_origins == 3
    last = forecast_scores(model, data, 2, seed=5, **options)
    close(last.totals["crps"], parts[0].totals["crps"])


def test_a_history_that_is_not_scored_conditions_the_forecast() -> None:
    data = from_arrays([np.arange(8.0), np.arange(6.0)])
    model = series_model(data)
    whole = forecast_scores(model, data, 2, origins=2, num_samples=10, seed=0)
    hidden = from_arrays([np.arange(8.0), np.arange(6.0)])
    hidden.mask = torch.arange(8) >= (hidden.lengths - 2).unsqueeze(1)
    hidden.mask &= torch.arange(8) < hidden.lengths.unsqueeze(1)
    part = forecast_scores(model, hidden, 2, origins=2, num_samples=10, seed=0)
    assert (whole.num_values, part.num_values) == (8, 4)
    close(part.totals["crps"], forecast_scores(model, data, 2, num_samples=10, seed=0).totals["crps"])


def test_origins_whose_horizon_begins_in_the_history_are_not_scored() -> None:
    data = from_arrays([np.arange(9.0), np.arange(6.0)])
    model = series_model(data)
    real = torch.arange(9) < data.lengths.unsqueeze(1)
    data.mask = real & (torch.arange(9) >= (data.lengths - torch.tensor([3, 2])).unsqueeze(1))
    assert scored_lengths(data).tolist() == [3, 2]
    data.values[0, 6] = NAN  # missing, and yet of the part that is scored
    data.mask[0, 6] = False
    result = forecast_scores(model, data, 2, origins=5, stride=1, num_samples=10, levels=0.5)
    assert (result.num_origins, result.num_values) == (2, 2 + 2 + 1) and [*result.coverage] == [0.5]
    assert forecast_scores(model, data, 3, num_samples=10).num_sequences == 1
    with pytest.raises(ValueError, match="of which up to 3 are scored, need 2 steps before the first origin, and 4"):
        forecast_scores(model, data, 4, origins=2)


def test_values_of_different_units_have_scores_of_their_own() -> None:
    x = np.random.default_rng(0).normal(size=(2, 20, 2)) * [0.01, 1e4]
    x[0, 19, 0] = NAN
    data = from_arrays(x, value_names=["small", "large"])
    scaling = data.layout.value_scaling
    model = nz.SequenceModel(nz.NoisyRNN(4, 3), Scaled(Gaussian(3, 2), scaling.loc, scaling.scale))
    result = forecast_scores(model, data, 4, num_samples=50, seed=0)
    assert result.crps is None and {*result.by_value} == {"small", "large"}
    drawn = nz.forecast(model, data.until(data.lengths - 4), 4, 50, seed=0).samples.double()
    scores = crps(drawn, data.values[:, 16:].double())
    for d, (name, scored) in enumerate(result.by_value.items()):
        assert scored["crps"] == pytest.approx(float(scores[..., d].nanmean())) and scored["mase"] > 0
        assert f"crps {name}" in result.standard_errors and f"crps {name}" in str(result)
    assert result.mase is not None and "crps" not in result.standard_errors


def test_refusals() -> None:
    data = from_arrays([np.arange(4.0)])
    model = series_model(data)
    words: Any = Sequences(torch.zeros(1, 4).long(), torch.zeros(1, 4).long())
    for given, options, message in (
        (data, {"num_steps": 3}, "nothing to score: sequences of up to 4 steps"),
        (data, {"num_steps": 1, "levels": [1.0]}, r"levels must be between 0 and 1, got \[1.0\]"),
        (data, {"num_steps": 1, "season": 0}, "season must be a positive integer"),
        (words, {"num_steps": 1}, "got classes; use evaluate"),
        (Stream(torch.arange(9), 1, 3), {"num_steps": 1}, "data must be Sequences or a Series, got Stream; for texts"),
    ):
        with pytest.raises(ValueError, match=message):
            forecast_scores(model, given, **options)


def test_one_series_has_no_standard_errors() -> None:
    data = from_arrays([np.arange(4.0)])
    scores = forecast_scores(series_model(data), data, 1)
    assert math.isnan(scores.standard_errors["crps"]) and "nan" not in str(scores)
