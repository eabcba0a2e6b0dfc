"""Forecasts against the Kalman filter, and what they read and return."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro.data import Sequences, Series, from_arrays, from_frame
from noisin_pyro.data.frames import future_covariates
from noisin_pyro.data.series_format import Table
from noisin_pyro.models import Emission, Gaussian, Scaled

from ..small_layers import close

HORIZON, REPEATS, SAMPLES = 4, 10, 2000
TRANSITION = torch.tensor([[0.8, 0.3], [-0.2, 0.7]]).double()
READ_OUT = torch.tensor([[1.0, 0.5], [-0.5, 1.0]]).double()
SPREAD, NOISE = 0.8, 0.6
NAN = torch.nan


def linear_gaussian(inputs: int, feedback: Tensor | None = None, emission: Emission | None = None) -> nz.SequenceModel:
    """z_t = A z_{t-1} + W x_{t-1} + γ ε, x_t = C z_t + N(0, σ²), where W acts on the first inputs."""
    rnn = nz.NoisyRNN(inputs, 2, cell="identity", spread=SPREAD)
    model = nz.SequenceModel(rnn, emission or Gaussian(2, 2)).double()
    gaussian: Any = model.emission if emission is None else emission.emission
    with torch.no_grad():
        for parameter in (*rnn.parameters(), *gaussian.linear.parameters()):
            parameter.zero_()
        rnn.weight_hh_l0.copy_(TRANSITION)
        if feedback is not None:
            rnn.weight_ih_l0[:, :2] = feedback
        gaussian.linear.weight.copy_(READ_OUT)
        gaussian.scale = torch.full((2,), NOISE).double()
    return model


def kalman(x: Tensor, feedback: Tensor | None = None) -> tuple[float, Tensor, Tensor]:
    """log p of the values of x ``(T, 2)`` that are not NaN, and means ``(H, 2)`` and covariances of H more steps."""
    weight = torch.zeros(2, 2).double() if feedback is None else feedback
    step = torch.cat([TRANSITION, weight], 1)
    move = torch.cat([step, READ_OUT @ step])  # of the state (z_t, x_t)
    spread = torch.cat([torch.eye(2).double(), READ_OUT]) * SPREAD
    noise = spread @ spread.T
    noise[2:, 2:] += NOISE**2 * torch.eye(2).double()
    mean, covariance, total, means, covariances = torch.zeros(4).double(), torch.zeros(4, 4).double(), 0.0, [], []
    for t in range(len(x) + HORIZON):
        mean, covariance = move @ mean, move @ covariance @ move.T + noise
        if t >= len(x):
            means.append(mean[2:])
            covariances.append(covariance[2:, 2:])
            continue
        seen = 2 + (~x[t].isnan()).nonzero().flatten()
        if len(seen):
            law = torch.distributions.MultivariateNormal(mean[seen], covariance[seen][:, seen])
            total += float(law.log_prob(x[t, seen - 2]))
            gain = torch.linalg.solve(covariance[seen][:, seen], covariance[seen]).T
            mean = mean + gain @ (x[t, seen - 2] - mean[seen])
            covariance = covariance - gain @ covariance[seen]
    return total, torch.stack(means), torch.stack(covariances)


def missing_at_random(seed: int, single: bool) -> list[Tensor]:
    """Values of three series, some missing; whole steps, or single values."""
    generator = torch.Generator().manual_seed(seed)
    series = []
    for length in (6, 4, 5):
        x = torch.randn(length, 2, generator=generator).double()
        gone = torch.rand(length, 2 if single else 1, generator=generator) < 0.4
        series.append(x.masked_fill(gone, NAN))
    return series


def padded(series: list[Tensor]) -> Sequences:
    x = torch.nn.utils.rnn.pad_sequence(series, True, NAN)
    lengths = torch.tensor([len(each) for each in series])
    return Sequences(torch.zeros(3, x.shape[1], 1).double(), x.nan_to_num(), lengths, ~x.isnan().all(-1))


def require_moments(model: Any, data: Any, truths: list[tuple[float, Tensor, Tensor]], **options: Any) -> None:
    """Means and variances over repeated forecasts equal the exact ones.

    A t test of each moment of each value: the false-alarm rate of all together is below 1e-3.
    """
    runs = [nz.forecast(model, data, HORIZON, SAMPLES, seed=seed, **options) for seed in range(REPEATS)]
    exact = torch.stack([torch.stack([mean, covariance.diagonal(dim1=1, dim2=2)]) for _, mean, covariance in truths], 1)
    moments = torch.stack([torch.stack([run.mean, run.samples.var(0)]) for run in runs])
    bound = stats.t.ppf(1 - 0.5e-3 / exact.numel(), REPEATS - 1)
    error = moments.std(0) / REPEATS**0.5
    assert ((moments.mean(0) - exact).abs() < bound * error).all()
    assert (error[0] < 0.05 * exact[1].sqrt()).all() and (error[1] < 0.05 * exact[1]).all()


@pytest.mark.parametrize("guide", [None, "filtering"])
def test_forecasts_and_likelihood_equal_the_kalman_filters(guide: str | None) -> None:
    series = missing_at_random(0, single=False)
    model, data, truths = linear_gaussian(1), padded(series), [kalman(x) for x in series]
    pyro.set_rng_seed(1)
    proposal = None if guide is None else nz.guides.get(guide, model)
    require_moments(model, data, truths, covariates=torch.zeros(3, HORIZON, 1), guide=proposal)
    result = nz.evaluate(model, data, "particle-filter", num_samples=4000, islands=20, guide=proposal)
    total = sum(each for each, *_ in truths)
    # five standard errors of the estimate, whose logarithm is biased by half its variance, far below one
    assert abs(-result.nats_per_step * result.num_steps - total) < 5 * result.monte_carlo_error * result.num_steps


def test_particles_that_read_their_own_draws_of_missing_values_are_exact() -> None:
    feedback = torch.tensor([[0.2, -0.3], [0.2, 0.1]]).double()
    series = missing_at_random(3, single=True)
    data = from_arrays([each.numpy() for each in series], scaling="none", dtype=torch.float64)
    model = linear_gaussian(data.layout.input_size, feedback, Scaled(Gaussian(2, 2)))
    require_moments(model, data, [kalman(x, feedback) for x in series], missing="draw")


@pytest.mark.parametrize("guide", [None, "filtering"])
def test_the_likelihood_of_a_part_is_given_its_history(guide: str | None) -> None:
    """The difference of two of the Kalman filter's; five standard errors: a false-alarm rate of 6e-7 each."""
    feedback = torch.tensor([[0.2, -0.3], [0.2, 0.1]]).double()
    x = torch.randn(2, 9, 2, generator=torch.Generator().manual_seed(0)).double()
    plain = from_arrays(x, scaling="none", dtype=torch.float64)
    table = Table([*x.numpy()], [np.zeros((9, 0))] * 2, [0, 1])
    data = Series(table, plain.format, history=[5, 6]).to("cpu", torch.float64)
    model = linear_gaussian(data.layout.input_size, feedback, Scaled(Gaussian(2, 2)))
    pyro.set_rng_seed(0)
    proposal = None if guide is None else nz.guides.get(guide, model)
    options = {"num_samples": 4000, "islands": 20, "guide": proposal, "log_probs": True}
    result = nz.evaluate(model, data, "particle-filter", **options)
    exact = sum(kalman(own, feedback)[0] - kalman(own[:stop], feedback)[0] for own, stop in zip(x, (5, 6), strict=True))
    assert result.num_steps == 4 + 3 and float(result.log_probs[0, :5].abs().sum()) == 0
    assert abs(-result.nats_per_step * 7 - exact) < 5 * result.monte_carlo_error * 7
    assert result.monte_carlo_error < 0.05 and 1 < result.effective_samples <= 4000


def test_series_read_the_last_value_and_an_indicator_where_a_value_is_missing() -> None:
    """The same numbers as from the model's own forward pass along the inputs that the data have."""
    values = [[[1.0, 2.0], [NAN, 1.5], [0.5, NAN]], [[2.0, 1.0], [1.0, 3.0]]]
    covariates = [[[0.1], [0.2], [0.3]], [[0.4], [0.5]]]
    future = torch.tensor([[[0.7], [0.8]], [[0.9], [1.0]]])
    data = from_arrays([np.array(each) for each in values], [np.array(each) for each in covariates])
    torch.manual_seed(0)
    rnn = nz.NoisyRNN(data.layout.input_size, 3, spread=0.0)
    emission = Gaussian(3, 2)
    emission.scale = torch.full((2,), 1e-6)  # x is the mean
    model = nz.SequenceModel(rnn, Scaled(emission))
    result = nz.forecast(model, data, 2, 2, covariates=future)
    for row in range(2):
        x = torch.tensor(values[row], dtype=torch.float32)
        for t in range(2):
            known = torch.cat([torch.tensor(covariates[row]), future[row]])[: len(x) + 1]
            inputs = data.layout.along(torch.cat([x, torch.zeros(1, 2)]), known)
            x = torch.cat([x, model(inputs[None]).emission.mean[0, -1:]])
            close(result.samples[0, row, t], x[-1], 1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2, "cell": "lstm", "input_spread": 0.2},
        {"cell": "sigmoid", "noise": "gamma:native"},
        {"noise": "bernoulli", "feedback": False},
        {"spread": 0.0},
    ],
)
def test_music_of_every_kind_of_network(options: dict[str, Any]) -> None:
    rolls = (torch.rand(3, 7, 5) < 0.4).float()
    data = Sequences(torch.cat([torch.zeros(3, 1, 5), rolls[:, :-1]], 1), rolls, torch.tensor([7, 3, 5]))
    model = nz.SequenceModel(nz.NoisyRNN(5, 4, **options), "bernoulli", 5)
    result = nz.forecast(model, data, 3, num_samples=10, seed=0)
    assert result.samples.shape == (10, 3, 3, 5) and set(result.samples.unique().tolist()) == {0.0, 1.0}
    assert "10 samples of 3 steps of 3 sequences" in repr(result)
    again = nz.forecast(model, data, 3, num_samples=10, seed=0)
    assert torch.equal(result.samples, again.samples)


def test_the_draw_of_each_step_is_the_input_of_the_next() -> None:
    """A counter: each x is the one before plus 1."""
    rnn = nz.NoisyRNN(1, 1, cell="identity", spread=1e-6)
    model = nz.SequenceModel(rnn, "gaussian", 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        rnn.weight_ih_l0.fill_(1.0)
        rnn.bias_ih_l0.fill_(1.0)
        model.emission.linear.weight.fill_(1.0)
        model.emission.scale = torch.tensor([1e-6])
    x = torch.arange(1.0, 6.0).reshape(1, 5, 1)
    data = Sequences(x - 1, x)
    close(nz.forecast(model, data, 4, 3).mean, torch.arange(6.0, 10.0).double().reshape(1, 4, 1), 1e-4)


@pytest.mark.parametrize("view", [nz.unroll, nz.innovations])
def test_weights_that_are_conditioned_on(view: Any) -> None:
    x = torch.randn(2, 6, 1)
    data = Sequences(torch.nn.functional.pad(x[:, :-1], (0, 0, 1, 0)), x)
    model = nz.SequenceModel(nz.NoisyRNN(1, 3), "gaussian", 1, weight_prior="normal")
    with pytest.raises(ValueError, match="forecast needs fixed weights and γ"):
        nz.forecast(model, data, 2)
    plain = nz.SequenceModel(nz.NoisyRNN(1, 3), "gaussian", 1)
    plain.emission.load_state_dict(model.emission.state_dict())
    plain.rnn.load_state_dict(nz.NoisyRNN(1, 3).state_dict())
    with torch.no_grad():
        for name in ("bias_ih_l0", "bias_hh_l0"):
            getattr(plain.rnn, name).copy_(getattr(model.rnn, name))
    trace = pyro.poutine.trace(model).get_trace(data.inputs, data.targets)
    given = {
        name: getattr(plain.rnn, name.rpartition(".")[2]) for name in trace.stochastic_nodes if name.startswith("rnn.")
    }
    assert len(given) == 2
    conditioned = view(pyro.condition(model, {name: w.detach() for name, w in given.items()}))
    first, second = (nz.forecast(each, data, 2, 20, seed=0) for each in (conditioned, plain))
    close(first.samples, second.samples, 1e-5)


def test_batches_do_not_change_what_is_forecast() -> None:
    """Equal means, within 4.5 standard errors of each of six values: a false-alarm rate of 4e-5."""
    x = torch.randn(3, 6, 1)
    data = Sequences(torch.nn.functional.pad(x[:, :-1], (0, 0, 1, 0)), x)
    model = nz.SequenceModel(nz.NoisyRNN(1, 3), "gaussian", 1)
    first, second = (nz.forecast(model, data, 2, 4000, batch_size=size, seed=0) for size in (2, None))
    error = (first.samples.var(0) / 4000 + second.samples.var(0) / 4000).sqrt()
    assert ((first.mean - second.mean).abs() < 4.5 * error).all()


class Positive(Emission):
    def forward(self, z: Tensor) -> Any:
        return dist.LogNormal(self.read_out(z), 1.0).to_event(1)


@pytest.mark.parametrize("missing", ["last", "draw"])
def test_positive_values_with_missing_steps(missing: str) -> None:
    """In each place that has a value for a density that is masked; the first step and the last have single values."""
    x = np.random.default_rng(0).lognormal(size=(3, 12, 2))
    x[:, 5] = x[0, 0, 0] = x[1, -3:] = x[2, -1, 1] = np.nan
    data = nz.data.from_arrays([*x, x[0, :7]])
    torch.manual_seed(0)
    model = nz.SequenceModel(nz.NoisyRNN(4, 3), Scaled(Positive(3, 2)))
    options = {"num_samples": 8, "missing": missing, "seed": 0}
    assert (nz.forecast(model, data, 2, **options).samples > 0).all()
    assert math.isfinite(nz.forecast_scores(model, data, 3, 2, **options).log_score)
    for part in (data, data.windows(5)):
        assert math.isfinite(nz.evaluate(model, part, "particle-filter").nats_per_step)
        nz.PriorAsGuide_ELBO()(model)(part.inputs, part.targets, lengths=part.lengths, mask=part.mask).backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def frame() -> pd.DataFrame:
    days = pd.date_range("2026-01-01", periods=12, freq="D")
    rows = [(shop, day, float(i % 4), i / 10) for shop in "ab" for i, day in enumerate(days)]
    return pd.DataFrame(rows, columns=["shop", "day", "sales", "price"])


def test_result() -> None:
    data = from_frame(frame(), id="shop", time="day", values="sales", covariates="price")
    model = nz.SequenceModel(nz.NoisyRNN(data.layout.input_size, 4), Scaled(nz.models.Poisson(4, 1)))
    result = nz.forecast(model, data, 3, 200, covariates=np.ones((2, 3, 1)), seed=1)
    assert result.samples.shape == (200, 2, 3, 1)
    low, high = result.interval(0.8)
    inside = ((low <= result.samples) & (result.samples <= high)).float().mean()
    assert 0.75 < inside <= 1 and (low <= result.quantile(0.5)).all()
    table = result.to_frame()
    assert list(table.columns[:4]) == ["shop", "day", "value", "mean"] and len(table) == 6
    assert table["shop"].tolist() == ["a"] * 3 + ["b"] * 3
    assert table["day"].tolist() == [*pd.date_range("2026-01-13", periods=3, freq="D")] * 2
    np.testing.assert_allclose(table["q0.5"], result.quantile(0.5).flatten())
    np.testing.assert_allclose(table["mean"], result.samples.double().mean(0).flatten())
    predictions = result.to_arviz()["predictions"]
    assert predictions["x"].dims == ("chain", "draw", "sequence", "time", "value")
    np.testing.assert_array_equal(
        predictions["x"].sel(chain=0, sequence="b", value="sales"), result.samples[:, 1, :, 0]
    )
    with pytest.raises(ValueError, match="q must be between 0 and 1"):
        result.quantile(1.0)


BERLIN = pd.date_range("2026", periods=9, tz="Europe/Berlin")


@pytest.mark.parametrize(
    ("times", "future", "message"),
    [
        (BERLIN, pd.date_range("2026-01-10", periods=3), "cannot be compared with 2026-01-09 00:00:00"),
        (pd.date_range("2026", periods=9), range(3), "covariates: times such as 0 cannot be compared with 2026-01-09"),
        (np.arange(9), pd.date_range("2026", periods=3), "write them alike: as dates or as numbers"),
        (None, range(9), "without times must have just the 3 future rows of series 0, got 9"),
        (BERLIN, pd.date_range("2026-01-09T23", periods=4, tz="UTC"), None),
        (np.round(np.arange(9) * 0.1, 1), np.round(np.arange(12) * 0.1, 1), None),
        (np.round(np.arange(39) * 0.1, 1), np.round(np.arange(42) * 0.1, 1), None),
    ],
)  # fmt: skip
def test_times_of_future_covariates(times: Any, future: Any, message: str | None) -> None:
    count = 9 if times is None else len(times)
    data = from_frame(
        pd.DataFrame({"y": np.arange(count) + 0.5, "c": 1.0} | ({} if times is None else {"t": times})),
        values="y",
        covariates="c",
        time=None if times is None else "t",
    )
    plan = pd.DataFrame({"t": future, "c": np.arange(float(len(future)))})
    model = nz.SequenceModel(nz.NoisyRNN(3, 3), Scaled(Gaussian(3, 1)))
    if message is None:
        read, times = future_covariates(plan, data, 3)
        assert times is not None and len(times[0]) == 3
        assert read.flatten().tolist() == [*plan["c"][len(plan) - 3 - (len(plan) == 4) :][:3]]
        return
    with pytest.raises(ValueError, match=message):
        nz.forecast(model, data, 3, covariates=plan)


def test_future_times_of_irregular_series() -> None:
    times = pd.DatetimeIndex(["2026-01-01", "2026-01-03 07:00", "2026-01-04", "2026-02-01"])
    data = from_frame(pd.DataFrame({"t": times, "y": np.arange(4.0)}), values="y", time="t", time_difference=True)
    model = nz.SequenceModel(nz.NoisyRNN(data.layout.input_size, 3), Scaled(Gaussian(3, 1)))
    future = pd.DataFrame({"t": ["2026-02-01", "2026-02-02", "2026-02-04T12"]})
    given = nz.forecast(model, data, 2, 3, covariates=future, seed=0)
    expected = nz.forecast(model, data, 2, 3, covariates=[[[86400], [2.5 * 86400]]], seed=0)
    assert torch.equal(given.samples, expected.samples) and expected.times is None
    assert given.to_frame()["t"].tolist() == [pd.Timestamp("2026-02-02"), pd.Timestamp("2026-02-04T12")]


def test_labels_of_future_rows_match_by_text() -> None:
    data = from_frame(frame().replace({"a": "1", "b": "2"}), id="shop", time="day", values="sales", covariates="price")
    days = pd.date_range("2026-01-13", periods=3)
    future = pd.concat([pd.DataFrame({"shop": shop, "day": days, "price": float(shop)}) for shop in (2, 1)])
    assert future_covariates(future, data, 3)[0][:, :, 0].tolist() == [[1] * 3, [2] * 3]
    both = pd.concat([future, future.assign(shop=future["shop"].astype(str))])
    assert future_covariates(both, data, 3)[0][:, 0, 0].tolist() == [1, 2]
    ambiguous = both[both["shop"] != "2"]
    with pytest.raises(ValueError, match="covariates have no rows of series '2', but of 2, 1, '1'; add 3 rows"):
        future_covariates(ambiguous, data, 3)


def test_a_value_from_the_same_distribution_is_below_the_quantiles_with_their_probability() -> None:
    """Of 20,000 batches of 9 samples; five standard errors have a false-alarm rate of 6e-7."""
    draws = torch.randn(10, 20_000, 1, 1, generator=torch.Generator().manual_seed(0))
    result = nz.Forecast(draws[:9], range(20_000), ["x"])
    low, high = result.interval(0.8)
    inside = ((low <= draws[9]) & (draws[9] <= high)).double().mean()
    assert abs(inside - 0.8) < 5 * (0.16 / 20_000) ** 0.5


def test_refusals() -> None:
    data = from_frame(frame(), id="shop", time="day", values="sales", covariates="price")
    model = nz.SequenceModel(nz.NoisyRNN(data.layout.input_size, 4), Scaled(nz.models.Poisson(4, 1)))
    plain = from_arrays([np.arange(5.0)])
    own = nz.SequenceModel(nz.NoisyRNN(2, 4), Scaled(Gaussian(4, 1)))
    measured = Sequences(torch.randn(2, 5, 3), torch.randn(2, 5, 1))
    regression = nz.SequenceModel(nz.NoisyRNN(3, 4), "gaussian", 1)
    bits = Sequences(torch.zeros(1, 5, 1), torch.ones(1, 5, 1), mask=torch.arange(5)[None] < 4)
    roll = nz.SequenceModel(nz.NoisyRNN(1, 4), "bernoulli", 1)
    with torch.no_grad():
        exploding = nz.SequenceModel(nz.NoisyRNN(2, 1, cell="identity"), Scaled(Gaussian(1, 1)))
        exploding.rnn.weight_hh_l0.fill_(1e20)
    for program, given, options, message in (
        (model, data, {}, r"covariates must be given.*price of the future steps, shape \(2, 3, 1\)"),
        (model, data, {"covariates": np.ones((2, 4, 1))}, r"shape \(2, 3, 1\).*got \(2, 4, 1\)"),
        (model, data, {"covariates": np.full((2, 3, 1), np.nan)}, "with NaN or infinite values"),
        (model, data, {"covariates": {"price": [1, 2, 3]}}, r"covariates must be numbers of shape .*, got dict"),
        (model, data, {"covariates": [[["a"]]]}, "covariates must be numbers of shape"),
        (model, data, {"covariates": [[[1.0], [2.0]], [[1.0]]]}, "covariates must be numbers of shape"),
        (own, plain, {"covariates": np.ones((1, 3, 1))}, "no effect on data without covariates"),
        (own, plain, {"num_samples": 0}, "num_samples must be a positive integer"),
        (own, plain, {"missing": "guess"}, "missing must be one of last, draw"),
        (regression, measured, {}, r"inputs are not the targets.*shape \(2, 3, 3\)"),
        (
            regression,
            measured,
            {"missing": "draw", "covariates": torch.ones(2, 3, 3)},
            "missing='draw' is for a Series",
        ),
        (roll, bits, {}, "must have the last value of every sequence"),
        (nz.noise_off(own), plain, {}, "forecast needs a SequenceModel"),
        (exploding, from_arrays([np.ones(1)]), {}, "overflow at future step"),
        (own, nz.data.Stream(torch.arange(9), 2, 3), {}, "for texts use generate"),
    ):
        with pytest.raises(ValueError, match=message):
            nz.forecast(program, given, 3, **options)


@pytest.mark.parametrize("missing", ["last", "draw"])
def test_large_covariates_keep_their_digits(missing: str) -> None:
    rng = np.random.default_rng(0)
    values, known = rng.normal(size=(2, 12, 1)), np.round(rng.normal(size=(2, 15, 1)), 3)
    results = []
    for offset in (0.0, 1e8):
        data = from_arrays(list(values), list(known[:, :12] + offset))
        torch.manual_seed(0)
        model = nz.SequenceModel(nz.NoisyRNN(data.layout.input_size, 4, spread=0.3), Scaled(Gaussian(4, 1)))
        future = known[:, 12:] + offset
        drawn = nz.forecast(model, data, 3, 5, covariates=future, missing=missing, seed=0).samples
        scores = nz.forecast_scores(model, data, 2, num_samples=5, missing=missing, seed=0)
        results.append((data.inputs, drawn, torch.tensor(scores.crps)))
    for small, large in zip(*results, strict=True):
        torch.testing.assert_close(small, large, rtol=0, atol=1e-5)
