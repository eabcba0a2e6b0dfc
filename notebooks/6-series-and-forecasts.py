# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Series and forecasts
#
# A table of measurements with gaps and covariates, and what comes next: how much, and how sure is that? This notebook
# goes from a CSV file to forecasts with intervals, and scores them beside two that are hard to beat: the value of a week
# ago, and the same network without noise.

# %%
import contextlib
import io
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

import noisin_pyro as nz
from noisin_pyro import plots
from noisin_pyro.inference import crps
from noisin_pyro.training import Data, Model, Noise, Optimization, Run

# %matplotlib inline
QUICK = "NOISIN_QUICK" in os.environ  # a smaller run, for testing
EPOCHS, PARTICLES, SAMPLES, ORIGINS = (1, 2, 50, 2) if QUICK else (100, 16, 400, 10)
torch.set_num_threads(1)  # the tensors are small

# %% [markdown]
# ## The data
#
# The table is simulated: two years of the daily demand for electricity of four towns, in MWh. It depends on the
# temperature, since people heat, and on whether the day is a working day. Both are known in advance, roughly for the
# temperature. What remains is a disturbance that lasts for about a week: an AR(1) process with a coefficient of 0.85.
# A twentieth of the values is missing, and one town has a gap of three weeks, whose rows are missing too.

# %%
DAYS, PERSISTENCE, SHOCK = 730, 0.85, 4.0
rng = np.random.default_rng(0)
dates = pd.date_range("2024-01-01", periods=DAYS)
season = -np.cos(2 * np.pi * (np.arange(DAYS) - 20) / 365.25)
holidays = (dates.strftime("%m-%d")).isin(["01-01", "05-01", "08-15", "12-25", "12-26"])
day_off = (dates.dayofweek >= 5) | holidays
towns = []
for town, level in {"Ashby": 120, "Bexley": 150, "Corby": 180, "Denham": 210}.items():
    temperature = 11 + 9 * season + rng.normal(0, 3, DAYS)
    disturbance = np.zeros(DAYS)
    for day in range(1, DAYS):
        disturbance[day] = PERSISTENCE * disturbance[day - 1] + rng.normal(0, SHOCK)
    heating = 2.0 * np.maximum(15 - temperature, 0)
    demand = level + heating - 25 * day_off + disturbance + rng.normal(0, 2, DAYS)
    columns = {"town": town, "date": dates, "demand": demand.round(1), "temperature": temperature.round(1)}
    towns.append(pd.DataFrame(columns | {"day_off": day_off.astype(int)}))
table = pd.concat(towns, ignore_index=True)
table.loc[rng.random(len(table)) < 0.05, "demand"] = np.nan
table = table[(table["town"] != "Bexley") | ~table["date"].between("2024-10-07", "2024-10-27")]

folder = tempfile.TemporaryDirectory()
csv = Path(folder.name) / "demand.csv"
table.to_csv(csv, index=False)
print(table.head(4).to_string(index=False))

# %%
figure, axes = plt.subplots(4, 1, figsize=(9, 6), sharex=True, layout="constrained")
for axis, (town, rows) in zip(axes, table.groupby("town"), strict=True):
    axis.plot(dates, rows.set_index("date")["demand"].reindex(dates), color="black", linewidth=0.8)
    axis.axvspan(dates[int(0.7 * DAYS)], dates[int(0.8 * DAYS)], color="#56B4E9", alpha=0.25, linewidth=0)
    axis.axvspan(dates[int(0.8 * DAYS)], dates[-1], color="#E69F00", alpha=0.25, linewidth=0)
    axis.set(ylabel="MWh", title=town)
figure.suptitle("Daily demand (blue: validation, orange: test)")
plt.show()

# %% [markdown]
# ## Training
#
# The last fifth of each series is for the test, and the tenth before it for validation. The network is a small GRU. Its
# inputs are the demand of the day before, an indicator of whether that is missing, and the covariates of the day.
#
# We train it three times. *No noise* is the deterministic twin: the emission's variance is the only randomness.
# *Equation (1)* has the paper's objective and a fixed γ, which regularizes. The *filtering bound* is the likelihood as a
# particle filter estimates it; there γ is a parameter of the model, learned without a floor, and the noise of the states
# can stand for the disturbance. That is what its intervals need.


# %%
def train(name, noise, bound="elbo", particles=1):
    config = nz.Config(
        data=Data(
            name=str(csv), covariates=("temperature", "day_off"), valid_fraction=0.1, test_fraction=0.2, window=73,
            batch_size=7, eval_batch_size=4,
        ),
        model=Model(cell="gru", hidden_size=16, emission="gaussian"),
        noise=noise,
        optimization=Optimization(
            epochs=EPOCHS, learning_rate=0.02, patience=20, bound=bound, num_particles=particles
        ),
        run=Run(folder=Path(folder.name) / name, twin=False, ensemble_samples=0),
    )
    with contextlib.redirect_stderr(io.StringIO()):  # the progress of each epoch
        return nz.train(config)


runs = {
    "no noise": train("none", Noise(spread=0.0)),
    "equation (1)": train("fixed", Noise(spread=0.2)),
    "filtering bound": train(
        "filtering", Noise(spread=0.2, learn_spread=True, spread_floor=0.0), "filtering", PARTICLES
    ),
}
for name, run in runs.items():
    print(f"{name:16} γ {run.model.rnn.spreads().get('gamma_1', 0.0):.2f}, best epoch {run.best_epoch} of {len(run.log)}")

# %% [markdown]
# ## A forecast
#
# `nz.forecast` filters the noise to the end of each series and simulates on: each draw of the demand is the next input.
# The covariates of the future are given. To see what came, we hide the last four weeks and forecast them.

# %%
HORIZON = 28
run = nz.load(Path(folder.name) / "filtering")
past = table[table["date"] < dates[-HORIZON]]
future = table[table["date"] >= dates[-HORIZON]]
series = nz.data.from_frame(past, format=run.series)
plan = future[["town", "date", "temperature", "day_off"]]
forecast = nz.forecast(run.model, series, HORIZON, SAMPLES, covariates=plan, seed=0)
actual = future["demand"].to_numpy().reshape(4, HORIZON, 1)
print(forecast.to_frame([0.1, 0.5, 0.9]).head(3).round(1).to_string(index=False))
plots.forecasts(forecast, series, actual=actual, max_history=56)

# %% [markdown]
# The samples are joint, so they answer questions about several days and towns at once, such as the largest total of the
# four towns on one day:

# %%
peak = forecast.samples[..., 0].sum(1).amax(1)
came = actual[..., 0].sum(0)
print(f"largest total: 80% interval {peak.quantile(0.1):.0f} to {peak.quantile(0.9):.0f} MWh; ", end="")
print(f"came: {np.nanmax(came):.0f} MWh, on the {np.isfinite(came).sum()} days without a missing value")

# %% [markdown]
# ## An honest score
#
# One forecast proves little. `nz.forecast_scores` repeats it from ten origins in the test days, each two weeks ahead.
# A network is trained once and reads the data up to each origin. The seasonal naive forecast is the last value observed
# on the same day of the week, plus a difference drawn from those of values a week apart in the past; it is scored at the
# same origins, by the same CRPS.

# %%
AHEAD, SEASON = 14, 7


def seasonal_naive(values):
    """Samples ``(S, AHEAD)`` of the days after the values of one series, NaN where missing."""
    differences = values[SEASON:] - values[:-SEASON]
    differences = differences[~np.isnan(differences)]
    days = pd.Series(values).groupby(np.arange(len(values)) % SEASON).last()  # the last that is not missing
    last = days.reindex((len(values) + np.arange(AHEAD)) % SEASON).to_numpy()
    draws = rng.choice(differences, (2, SAMPLES, AHEAD))
    draws[1, :, :SEASON] = 0  # the second week is two differences ahead
    return last + draws.sum(0)


def score_naive():
    wide = table.pivot(index="town", columns="date", values="demand").reindex(columns=dates).to_numpy()
    parts = []
    for origin in range(ORIGINS):
        cut = DAYS - AHEAD * (origin + 1)
        samples = torch.tensor(np.stack([seasonal_naive(values[:cut]) for values in wide], 1))
        x = torch.tensor(wide[:, cut : cut + AHEAD])
        levels = {}
        for level in (0.5, 0.8, 0.95):
            low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], 0, method="weibull")
            levels[level] = ((low <= x.numpy()) & (x.numpy() <= high))[~x.isnan()]
        scale = np.nanmean(np.abs(wide[:, SEASON:cut] - wide[:, : cut - SEASON]), 1, keepdims=True)
        error = np.abs(x.numpy() - np.median(samples, 0)) / scale
        parts.append((crps(samples, x)[~x.isnan()], error[~x.isnan()], levels))
    numbers = {"crps": np.concatenate([part[0] for part in parts]).mean()}
    numbers["mase"] = np.concatenate([part[1] for part in parts]).mean()
    return numbers | {level: np.concatenate([part[2][level] for part in parts]).mean() for level in (0.5, 0.8, 0.95)}


options = {"num_steps": AHEAD, "origins": ORIGINS, "season": SEASON, "num_samples": SAMPLES, "seed": 0}
scores = {name: nz.forecast_scores(each.model, run.corpus.test, **options) for name, each in runs.items()}
rows = {"seasonal naive": score_naive()}
rows |= {name: {"crps": each.crps, "mase": each.mase, **each.coverage} for name, each in scores.items()}
results = pd.DataFrame(rows).T
results.columns = ["CRPS, MWh", "scaled error", "in 50%", "in 80%", "in 95%"]
print(f"{scores['no noise'].num_values} values of {ORIGINS} origins")
print(results.round(3).to_string())
