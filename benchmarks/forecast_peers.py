"""Forecasts of public series from rolling origins, beside pyro.contrib.forecast, a plain GRU and classical methods.

``python benchmarks/forecast_peers.py`` writes ``results/forecast_peers.json`` and the table
``results/forecast_peers.md``. The series come with statsmodels (the extra ``benchmarks``): monthly carbon dioxide at
Mauna Loa, yearly sunspots and monthly sea-surface temperatures of El Niño, all in the public domain.

Every method has four settings (the seasonal naive forecast has none), of which that with the least CRPS from the
validation origins forecasts from the test origins. The networks are trained once, on what precedes the validation
origins, and read the rest as history. The others are refitted at each origin, which is to their advantage.
"""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
import tyro
from pyro.contrib.forecast import Forecaster, ForecastingModel
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro._files import write_json
from noisin_pyro._lookup import known
from noisin_pyro._tables import markdown
from noisin_pyro.inference import crps
from noisin_pyro.models import Gaussian, Scaled
from noisin_pyro.training.provenance import provenance

RESULTS = Path(__file__).parents[1] / "results"
SEED, SAMPLES, PARTICLES = 0, 400, 16
FORECASTER = {"num_steps": 1001, "learning_rate": 0.01}
"""Options of Pyro's ``Forecaster``: its defaults."""
Forecasts = Callable[[np.ndarray, int], Tensor]
"""From the values before an origin and a number of steps, samples ``(S, H)``."""


def load(name: str) -> tuple[np.ndarray, int]:
    """The values of a series and its season. The months without carbon dioxide are interpolated for all methods."""
    from statsmodels import datasets

    frame = getattr(datasets, name).load_pandas().data
    if name == "co2":
        return frame["co2"].resample("MS").mean().interpolate().to_numpy(copy=True), 12
    if name == "sunspots":
        return frame["SUNACTIVITY"].to_numpy(dtype=float, copy=True), 11
    return frame.drop(columns="YEAR").to_numpy(dtype=float).ravel(), 12


def seasonal_naive(values: np.ndarray, season: int, setting: Any, steps: int) -> Forecasts:
    """The value a season ago, plus Gaussian errors whose variance grows with the number of seasons."""

    def forecast(history: np.ndarray, horizon: int) -> Tensor:
        spread = np.std(history[season:] - history[:-season])
        ahead = np.arange(horizon)
        mean = history[len(history) - season + ahead % season]
        scale = spread * np.sqrt(ahead // season + 1)
        return torch.from_numpy(mean + scale * np.random.default_rng(SEED).normal(size=(SAMPLES, horizon)))

    return forecast


def exponential_smoothing(values: np.ndarray, season: int, setting: Any, steps: int) -> Forecasts:
    """ETS with additive errors, fitted at each origin; the setting has its trend and its season."""
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    trend, seasonal = setting

    def forecast(history: np.ndarray, horizon: int) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fits that have not converged
            periods = {"seasonal": "add", "seasonal_periods": season} if seasonal else {}
            fit: Any = ETSModel(history, trend="add" if trend else None, **periods).fit(disp=False)
            errors = np.random.default_rng(SEED).normal(scale=np.sqrt(fit.mse), size=(horizon, SAMPLES))
            samples = fit.simulate(horizon, anchor="end", repetitions=SAMPLES, random_errors=errors)
        return torch.from_numpy(np.asarray(samples, dtype=float).reshape(horizon, SAMPLES).T.copy())

    return forecast


class LocalLevel(ForecastingModel):
    """A random walk, with a drift and with a season, in Pyro's module for forecasts."""

    def __init__(self, season: int, drift: bool, seasonal: bool) -> None:
        super().__init__()
        self.season, self.drift, self.seasonal = season, drift, seasonal

    def model(self, zero_data: Tensor, covariates: Tensor) -> None:
        length = covariates.shape[-2]

        def sample(name: str, law: Any) -> Tensor:
            return pyro.sample(name, law.to_event(1))

        scales = [sample(f"{name}_scale", dist.LogNormal(-2.0, 1.0).expand([1])) for name in ("step", "error")]
        with self.time_plate:
            step = sample("step", dist.Normal(0.0, 1.0).expand([1]))
        level = sample("start", dist.Normal(0.0, 2.0).expand([1])) + scales[0] * step.cumsum(-2)
        if self.drift:
            drift = sample("drift", dist.Normal(0.0, 0.1).expand([1]))
            level = level + drift * torch.arange(1.0, length + 1).unsqueeze(-1)
        if self.seasonal:
            effects = sample("season", dist.Normal(0.0, 1.0).expand([self.season]))
            effects = effects[..., torch.arange(length) % self.season]  # (T,), or (S, 1, T) in forecasts
            level = level + effects.reshape(*effects.shape[:-2], length, 1)
        self.predict(dist.Normal(0.0, scales[1]), level)


def pyro_forecast(values: np.ndarray, season: int, setting: Any, steps: int) -> Forecasts:
    """``pyro.contrib.forecast`` with a local level, fitted by SVI at each origin; ``FORECASTER`` sets its steps."""

    def forecast(history: np.ndarray, horizon: int) -> Tensor:
        loc, scale = history.mean(), history.std()
        data = torch.tensor((history - loc) / scale, dtype=torch.float32).unsqueeze(-1)
        covariates = torch.zeros(len(history) + horizon, 0)
        pyro.clear_param_store()
        pyro.set_rng_seed(SEED)
        model = LocalLevel(season, *setting)
        forecaster = Forecaster(model, data, covariates[: len(data)], log_every=0, **FORECASTER)
        return forecaster(data, covariates, num_samples=SAMPLES)[..., 0].double() * scale + loc

    return forecast


def network(training: str, values: np.ndarray, season: int, setting: Any, steps: int) -> Forecasts:
    """A GRU on values, or on their differences over a season, which are summed again in forecasts.

    Args:
        training: ``"plain"`` (no noise), ``"equation (1)"``, ``"noise off"`` (the same, without noise in forecasts),
            ``"smoothing guide"`` or ``"filtering bound"``, with γ learned by the last two.
        setting: whether values are differenced; hidden units of the plain network, and γ at the start of the others.
    """
    differenced, second = setting
    hidden, spread = (second, 0.0) if training == "plain" else (24, second)

    def series_of(x: np.ndarray, format: Any = None) -> nz.data.Series:
        return nz.data.from_arrays([x[season:] - x[:-season] if differenced else x], format=format)

    pyro.set_rng_seed(SEED)
    data = series_of(values)
    learned = training in ("smoothing guide", "filtering bound")
    rnn = nz.NoisyRNN(
        data.layout.input_size,
        hidden,
        cell="gru",
        spread=nz.Spread(spread, floor=0.0, learn=True) if learned else spread,
    )
    scaling = data.layout.value_scaling
    model = nz.SequenceModel(rnn, Scaled(Gaussian(hidden, 1), scaling.loc, scaling.scale))
    guide = nz.guides.get("smoothing", model) if training == "smoothing guide" else None
    options = {"bound": "filtering", "num_particles": PARTICLES} if training == "filtering bound" else {}
    bound = nz.PriorAsGuide_ELBO(**options)(*[model] if guide is None else [model, guide])
    parameters = [*bound.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.01)
    (batch,) = data.windows(4 * season).batches()
    for _ in range(steps):
        optimizer.zero_grad()
        bound(batch.inputs, batch.targets, **batch.keywords).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        optimizer.step()
    if training == "noise off":
        rnn.set_spread(0.0)

    def forecast(history: np.ndarray, horizon: int) -> Tensor:
        series = series_of(history, data.format)
        drawn = nz.forecast(model, series, horizon, SAMPLES, guide=guide, seed=SEED).samples[:, 0, :, 0].double()
        if differenced:
            for h in range(horizon):
                before = drawn[:, h - season] if h >= season else float(history[len(history) - season + h])
                drawn[:, h] += before
        return drawn

    return forecast


NETWORKS = "plain", "equation (1)", "noise off", "smoothing guide", "filtering bound"
FLAGS = [*itertools.product((False, True), repeat=2)]
METHODS: dict[str, tuple[Callable[..., Forecasts], list[Any]]] = {
    "seasonal naive": (seasonal_naive, [None]),
    "ETS": (exponential_smoothing, FLAGS),
    "pyro.contrib.forecast": (pyro_forecast, FLAGS),
}
for _name in NETWORKS:
    _second = (16, 32) if _name == "plain" else (0.1, 0.3)
    METHODS[f"GRU, {_name}"] = (
        lambda *arguments, training=_name: network(training, *arguments),
        [*itertools.product((False, True), _second)],
    )


def origins(length: int, horizon: int, count: int) -> tuple[list[int], list[int]]:
    """Validation and test origins, half a horizon apart; no validation forecast reaches into the test."""
    stride = max(horizon // 2, 1)
    test = [length - horizon - stride * i for i in range(count)][::-1]
    valid = [test[0] - horizon - stride * i for i in range(count)][::-1]
    return valid, test


def score(forecast: Forecasts, values: np.ndarray, at: list[int], season: int, horizon: int) -> dict[str, float]:
    """CRPS, scaled error and coverage of 80 % intervals over all origins, and the standard error of CRPS."""
    each = []
    for origin in at:
        samples, x = forecast(values[:origin], horizon), torch.from_numpy(values[origin : origin + horizon])
        naive = np.abs(values[season:origin] - values[: origin - season]).mean()
        low, median, high = np.quantile(samples.numpy(), [0.1, 0.5, 0.9], axis=0, method="weibull")
        inside = (low <= x.numpy()) & (x.numpy() <= high)
        error = np.abs(x.numpy() - median).mean() / naive
        each.append((float(crps(samples, x).mean()), float(error), float(inside.mean())))
    numbers = np.array(each)
    error = float(numbers[:, 0].std(ddof=1)) / len(at) ** 0.5 if len(at) > 1 else float("nan")
    return dict(zip(("crps", "mase", "coverage 0.8"), numbers.mean(0).tolist(), strict=True)) | {"crps error": error}


def compare(pairs: Iterable[tuple[str, str]], count: int, steps: int) -> Iterator[dict[str, Any]]:
    """A row for each pair of a series and a method: the chosen setting and its test scores."""
    for name, method in pairs:
        values, season = load(name)
        valid, test = origins(len(values), season, count)
        make, settings = METHODS[method]
        tried = []
        for setting in settings:
            forecast = make(values[: valid[0]], season, setting, steps)
            tried.append((score(forecast, values, valid, season, season)["crps"], setting, forecast))
        best, setting, forecast = min(tried, key=lambda each: each[0])
        row = {"series": name, "method": method, "setting": setting, "valid crps": best}
        yield row | score(forecast, values, test, season, season)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table; the least CRPS of each series is bold."""
    least = {name: min(row["crps"] for row in rows if row["series"] == name) for name in {r["series"] for r in rows}}
    heads = ["series", "method", "CRPS", "MASE", "coverage of 80% intervals"]

    def cells(row: dict[str, Any]) -> list[str]:
        shown = f"{row['crps']:.3g}"
        shown = f"**{shown}**" if row["crps"] == least[row["series"]] else shown
        others = [f"{row['mase']:.2f}", f"{row['coverage 0.8']:.0%}"]
        return [row["series"], row["method"], f"{shown} ± {row['crps error']:.2g}", *others]

    return markdown(heads, [cells(row) for row in rows])


def main(
    series: tuple[str, ...] = ("co2", "sunspots", "elnino"),
    methods: tuple[str, ...] = tuple(METHODS),
    count: int = 8,
    steps: int = 300,
    folder: Path = RESULTS,
) -> None:
    """Compare forecasts from rolling origins. After an interruption the same command resumes.

    Args:
        series: Data sets of statsmodels.
        methods: Methods to compare.
        count: Number of origins in validation, and in the test.
        steps: Number of gradient steps of each network.
        folder: Folder for the results.
    """
    for method in methods:
        known("method", method, METHODS)
    settings: dict[str, Any] = {
        "seed": SEED,
        "origins": count,
        "steps": steps,
        "samples": SAMPLES,
        "particles": PARTICLES,
    }
    settings["forecaster"] = FORECASTER
    result, text = folder / "forecast_peers.json", folder / "forecast_peers.md"
    rows = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {"settings": settings, "rows": []}
    if rows["settings"] != settings:
        raise ValueError(f"{result} has other settings, {rows['settings']}; remove it, or give another folder")
    rows = rows["rows"]
    done = {(row["series"], row["method"]) for row in rows}
    for row in compare([pair for pair in itertools.product(series, methods) if pair not in done], count, steps):
        rows.append(row | provenance(torch.device("cpu")))
        write_json(result, {"settings": settings, "rows": rows})
        text.write_text(table(rows), encoding="utf-8")
        print(row, flush=True)
    print(table(rows))


if __name__ == "__main__":
    tyro.cli(main)
