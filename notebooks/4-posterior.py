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
# # Posterior analysis
#
# The volatility of a share price changes over time and is not observed directly; only the daily moves are. A
# recurrent network whose state determines the volatility is a model of it. With noise in the state, the volatility
# has a posterior given all moves. This notebook examines this posterior for Google's share.

# %%
import json
import os
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from matplotlib import cbook
from pyro import poutine

import noisin_pyro as nz
from noisin_pyro import plots
from noisin_pyro.models import Emission

for kind in (DeprecationWarning, FutureWarning):  # of ArviZ 0.23 about version 1, and of Matplotlib about ArviZ
    warnings.filterwarnings("ignore", category=kind, module="arviz")
import arviz as az

# %matplotlib inline
QUICK = "NOISIN_QUICK" in os.environ  # a smaller run, for testing
STEPS, DRAWS, CHAIN, FILTER = (30, 20, 10, 40) if QUICK else (400, 1000, 150, 1000)
torch.set_num_threads(1)  # the tensors are small
pyro.settings.set(module_local_params=True)  # each model has its own parameters

# %% [markdown]
# ## The data
#
# The data are included in Matplotlib: closing prices on 1008 trading days, October 2004 to October 2008, in quarters
# of 63 days. The inputs of the network are the previous day's move and its size. Every other quarter is used for
# training, and the others for testing.

# %%
prices = np.load(cbook.get_sample_data("goog.npz", asfileobj=False))["price_data"][-1010:]
moves = torch.tensor(100 * np.diff(np.log(prices["adj_close"])), dtype=torch.float32).unsqueeze(-1)  # per cent
dates = prices["date"][2:]


def cut(days):
    """Sequences of ``days`` days: training and test sequences, which alternate, and the dates of the test sequences."""
    before, x = moves[:-1].reshape(-1, days, 1), moves[1:].reshape(-1, days, 1)
    inputs = torch.cat([before, before.abs()], -1) / 3
    parts = (nz.data.Sequences(inputs[part::2], x[part::2]) for part in (0, 1))
    return *parts, dates.reshape(-1, days)[1::2]


train, test, test_dates = cut(days=63)
figure, axis = plt.subplots(figsize=(9, 2.8), layout="constrained")
axis.vlines(dates, 0, moves[1:, 0], color="black", linewidth=0.7)
for quarter in test_dates:
    axis.axvspan(quarter[0], quarter[-1], color="#E69F00", alpha=0.2, linewidth=0)
axis.set_title("Google's share: move of the day (shaded: quarters to test on)")
axis.set_ylabel("per cent")
plt.show()

# %% [markdown]
# ## The model
#
# A GRU with two units z determines the day's **volatility**, the standard deviation of its move: exp(v·z + b). This
# is a custom emission. Noise, guides, particle filter and posterior support it like the built-in ones.


# %%
class Volatility(Emission):
    def forward(self, z):
        return dist.Normal(0.0, self.read_out(z).exp()).to_event(1)


def fit(model, data, guide=None, steps=STEPS):
    """Maximize the bound by Adam: variational inference with a guide, equation (1) of the paper without."""
    bound = nz.PriorAsGuide_ELBO(num_particles=4)(model, guide)
    parameters = [p for p in bound.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = bound(data.inputs, data.targets) / data.num_steps
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        schedule.step()


def gru(spread):
    pyro.set_rng_seed(0)
    return nz.SequenceModel(nz.NoisyRNN(2, 2, cell="gru", spread=spread), Volatility(2, 1))


without = {steps: gru(spread=0.0) for steps in (STEPS // 4, STEPS // 2, STEPS)}
for steps, network in without.items():
    fit(network, train, steps=steps)

model = gru(spread=nz.Spread(0.3, floor=0.0, learn=True))
guide = nz.guides.get("smoothing", model, hidden_size=16)
fit(model, train, guide)

# %%
noisy = nz.evaluate(model, test, "particle-filter", num_samples=FILTER)
print(f"with noise, γ = {model.rnn.spreads()['gamma_1']:.2f}:  {noisy.nats_per_step:.3f} nats a day")
gains = {}
for steps, network in without.items():
    clean = nz.evaluate(network, test)
    gains[steps] = noisy.difference(clean)
    difference = f"noise is worth {-gains[steps].nats_per_step:.3f} ± {gains[steps].standard_error:.3f}"
    print(f"without, {steps:3} steps:   {clean.nats_per_step:.3f} nats a day, {difference}")

# %% [markdown]
# The scores are on the test quarters; the errors are standard errors of the paired difference over quarters. The noisy
# network is better by about three standard errors, wherever the training without noise is stopped.
#
# ## Draws and their diagnostics
#
# `nz.posterior` draws the states of each test quarter from the guide and resamples them in proportion to their
# importance weights. The more uneven the weights, the further the proposals are from the posterior. The figure
# compares proposals from the guide and from the prior.

# %%
options = {"num_samples": DRAWS, "num_proposals": 10 * DRAWS, "seed": 1, "progress": False}
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of large k̂, which the figure shows
    prior = nz.posterior(model, test, **options)
    resampled = nz.posterior(model, test, guide, **options)

sources = {"prior": prior, "smoothing guide": resampled}
stats = {name: each.sample_stats for name, each in sources.items()}
diagnostics = {name: (each.pareto_k, each.effective_proposals) for name, each in stats.items()}
plots.diagnostics(diagnostics, num_proposals=10 * DRAWS)

# %% [markdown]
# Proposals from the guide cover the posterior, although the guide was not trained on these quarters. Proposals from the
# prior do not, in most quarters.
#
# ## Volatility over time
#
# The figure shows the posterior of the volatility on each day, and the path of the same network with its noise off,
# in a calm quarter and in the last quarter, that of the financial crisis.


# %%
def volatility(network, z):
    """Volatility in per cent per day, (...), from states (..., units)."""
    with torch.no_grad():
        return network.emission(torch.tensor(np.asarray(z))).base_dist.scale[..., 0].numpy()


with torch.no_grad():
    path = nz.noise_off(model)(test.inputs).emission.base_dist.scale[..., 0].numpy()
draws = volatility(model, resampled.posterior.z_1[0])  # draw, quarter, day

figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained", dpi=150)
for axis, quarter in zip(axes, (5, 7), strict=True):
    first, last = test_dates[quarter][[0, -1]].astype(object)
    title = f"{first:%d %B} to {last:%d %B %Y}"
    plots.trajectories(draws[:, quarter], path[quarter], num_draws=2, title=title, legend=False, ax=axis)
    sizes = test.targets[quarter, :, 0].abs()
    axis.plot(range(1, len(sizes) + 1), sizes, ".", color="black", markersize=4, label="size of the day's move")
    axis.set(xlabel="trading day", ylabel="per cent a day")
axes[0].set_ylim(bottom=0)
figure.suptitle("Volatility of Google's share: posterior, and the same network without its noise")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
figure.savefig("volatility.png")
plt.show()

# %%
low, high = np.quantile(draws, [0.05, 0.95], axis=0)
outside = ((path < low) | (path > high)).mean(1)
for dates_of, share, k in zip(test_dates, outside, resampled.sample_stats.pareto_k.values, strict=True):
    print(f"{dates_of[0]} to {dates_of[-1]}: noise off is outside on {share:3.0%} of the days; k̂ {k:.2f}")

numbers = {
    "nats_per_day": noisy.nats_per_step,
    "worth": {steps: [-each.nats_per_step, each.standard_error] for steps, each in gains.items()},
    "outside": outside.tolist(),
    "pareto_k": resampled.sample_stats.pareto_k.values.tolist(),
}
numbers |= {"training_seed": 0, "training_steps": STEPS, "posterior": resampled.attrs}
Path("volatility.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")

# %% [markdown]
# In calm quarters the deterministic path is inside the interval. In the last quarter it stays at its level, while the
# posterior follows the crash. Note that the posterior conditions on the whole quarter, including later days, unlike a
# forecast.
#
# ## Predictive checks
#
# The left figure shows ArviZ's posterior predictive check on the test data. Posterior predictive draws condition on
# the data that they replicate. The right figure therefore uses the prior, for both networks: the distribution of the
# largest move in 504 test days.

# %%
with torch.no_grad():
    replicates = {"without noise": without[STEPS // 2](test.inputs).emission.sample((DRAWS,))[..., 0]}
pyro.set_rng_seed(2)
replicates["with noise"] = torch.tensor(volatility(model, resampled.prior.z_1[0])) * torch.randn(
    DRAWS, *test.targets.shape[:2]
)
observed = float(test.targets.abs().max())

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
az.plot_ppc(resampled, num_pp_samples=20, random_seed=0, ax=left, textsize=10, legend=False)
left.set(title="Moves of the test days", xlabel="per cent", ylabel="density", xlim=(-10, 10))
left.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
for (name, each), color in zip(replicates.items(), ("#D55E00", "#0072B2"), strict=True):
    largest = each.abs().amax((1, 2)).numpy()
    share = (largest >= observed).mean()
    right.hist(largest, bins=np.arange(5, 31), color=color, alpha=0.5, label=f"{name} ({share:.0%} as large)")
right.axvline(observed, color="black", linestyle="--", label=f"observed ({observed:.1f})")
right.set(title=f"Largest move in {DRAWS} replicates", xlabel="per cent", ylabel="replicates")
right.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
plt.show()

# %% [markdown]
# Noise in the state gives the moves heavier tails than a Gaussian. A move of the observed size is rare with noise, and
# almost impossible without.
#
# ## Comparing families on held-out months
#
# We now use a smaller model, the standard stochastic volatility model: one *linear* unit with Gaussian noise. Its
# state is the logarithm of the volatility up to a constant, and γ is the standard deviation of its daily change. We
# compare three families of noise. Sequences are months of 21 days; γ is learned, and log p(x) of the test months is
# estimated by the particle filter.


# %%
def textbook(noise, spread):
    model = nz.SequenceModel(nz.NoisyRNN(2, 1, cell="identity", noise=noise, spread=spread), Volatility(1, 1))
    torch.nn.init.ones_(model.emission.linear.weight).requires_grad_(False)
    torch.nn.init.zeros_(model.rnn.weight_ih_l0)
    torch.nn.init.constant_(model.rnn.weight_hh_l0, 0.5)
    return model


months, test_months, _ = cut(days=21)
learned, held_out = {}, {}
for noise in ("gaussian", "laplace", "gumbel"):
    pyro.set_rng_seed(0)
    learned[noise] = textbook(noise, nz.Spread(0.3, floor=0.0, learn=True))
    fit(learned[noise], months, nz.guides.get("smoothing", learned[noise], hidden_size=16))
    each = held_out[noise] = nz.evaluate(learned[noise], test_months, "particle-filter", num_samples=4 * FILTER)
    gap = each.difference(held_out["gaussian"])
    print(f"{noise:9} γ {learned[noise].rnn.spreads()['gamma_1']:.2f}, {each.nats_per_step:.3f} nats a day", end="")
    errors = f"± {gap.standard_error:.3f} (months, paired) ± {gap.monte_carlo_error:.3f} (noise)"
    print("" if noise == "gaussian" else f"; minus gaussian {gap.nats_per_step:+.3f} {errors}")

# %% [markdown]
# The differences are smaller than two standard errors. The presence of noise matters here, not its family.
#
# ## γ with a prior, and NUTS
#
# With the weights fixed, we give γ a prior and compute its posterior in two ways: by the No-U-Turn sampler, which
# samples γ and all innovations jointly, and by a guide. The guide consists of a lognormal distribution of γ and a
# smoothing guide conditioned on γ. The named guides draw γ from its prior, so that site is hidden and conditioned on
# the draw of our guide.

# %%
GAMMA = "rnn.spread_1.gamma"  # the name of the site of γ


class Both(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.location = torch.nn.Parameter(torch.tensor(-1.0))
        self.log_scale = torch.nn.Parameter(torch.tensor(-1.0))
        self.smoothing = nz.guides.get("smoothing", model, hidden_size=16)

    def forward(self, inputs, targets, lengths=None):
        gamma = pyro.sample(GAMMA, dist.LogNormal(self.location, self.log_scale.exp()))
        with poutine.block(hide=[GAMMA]), pyro.condition(data={GAMMA: gamma}):
            self.smoothing(inputs, targets, lengths=lengths)


unsure, nuts = {}, {}
for noise in ("gaussian", "laplace"):
    unsure[noise] = textbook(noise, nz.Spread(prior=dist.LogNormal(-1.0, 1.0)))
    unsure[noise].load_state_dict(learned[noise].state_dict(), strict=False)  # all but γ
    unsure[noise].requires_grad_(False)
    options = {"num_samples": CHAIN, "num_chains": 2, "warmup_steps": CHAIN // 2, "num_particles": FILTER}
    nuts[noise] = nz.posterior(unsure[noise], months, method="nuts", seed=1, progress=False, **options)

columns = ["mean", "sd", "hdi_5%", "hdi_95%", "ess_bulk", "r_hat"]
for noise, each in nuts.items():
    print(f"{noise}: R-hat of the states {float(az.rhat(each).z_1.max()):.2f} at most, ", end="")
    print(f"{int(each.sample_stats.diverging.sum())} divergences")
    print(az.summary(each, var_names=["gamma_1"], hdi_prob=0.9)[columns])

with plt.rc_context({"figure.constrained_layout.use": True}):
    density, chains = az.plot_trace(nuts["gaussian"], var_names=["gamma_1"], figsize=(9, 3))[0]
density.set(title="Gaussian noise: density of γ in each of two chains", xlabel="γ")
chains.set(title="The chains", xlabel="draw", ylabel="γ")
plt.show()

# %%
pyro.set_rng_seed(0)
both = Both(unsure["gaussian"])
view = nz.innovations(unsure["gaussian"])  # a custom guide is passed with the view whose sites it samples
fit(view, months, both)
with warnings.catch_warnings(record=True):
    warnings.simplefilter("always")
    options = {"num_samples": DRAWS, "num_proposals": 10 * DRAWS, "num_particles": 0, "seed": 1, "progress": False}
    guided = nz.posterior(view, months, both, **options)
print(f"k̂ of all months together {float(guided.sample_stats.pareto_k):.2f}; ", end="")
print(f"{10 * DRAWS} proposals are worth {float(guided.sample_stats.effective_proposals):.0f} draws")

names = ["prior", "guide, resampled", "NUTS"]
three = [guided.prior, guided.posterior, nuts["gaussian"].posterior]
az.plot_forest(
    three, model_names=names, var_names=["gamma_1"], combined=True, hdi_prob=0.9, figsize=(7, 2.6), textsize=10
)
plt.gca().set(title="γ: median, and intervals of 50% and 90%", xlabel="γ", yticks=[])
plt.show()

# %% [markdown]
# The posterior of γ is much narrower than its prior. The guide, resampled by the weights of all months together, agrees
# with NUTS. The two also agree on the volatility over time, here in the month of the largest move:

# %%
month = int(months.targets.abs().amax((1, 2)).argmax())
days = dates.reshape(-1, 21)[0::2][month].astype(object)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
for axis, (name, each) in zip(axes, {"guide, resampled": guided, "NUTS": nuts["gaussian"]}.items(), strict=True):
    z = each.posterior.z_1[:, :, month].values.reshape(-1, 21, 1)  # joins the chains
    plots.trajectories(volatility(unsure["gaussian"], z), title=name, legend=False, ax=axis)
    sizes = months.targets[month, :, 0].abs()
    axis.plot(range(1, 22), sizes, ".", color="black", markersize=4, label="size of the day's move")
    axis.set(xlabel="trading day", ylabel="per cent a day")
axes[0].set_ylim(bottom=0)
figure.suptitle(f"Volatility from {days[0]:%d %B} to {days[-1]:%d %B %Y}, by two ways")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
plt.show()

# %% [markdown]
# ## Comparing families by leave-one-out cross-validation
#
# `az.loo` answers the same question without held-out data: it reweights the draws to leave out one month at a time.
# This works for γ, which all months share, and hence for `x_marginal`, log p(x | γ) of each month with its states
# integrated out. It does not work for single days, with p(x_t | z_t): the posterior of a day's state depends mostly
# on that day, so leaving the day out changes it too much. If neither γ nor weights are sampled, months share no
# latents, and leave-one-out does not apply.

# %%
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of large k̂, which is printed
    print(az.compare(nuts, var_name="x_marginal")[["elpd_loo", "p_loo", "elpd_diff", "dse"]].round(1))
    for noise, each in nuts.items():
        k = az.loo(each, var_name="x_marginal", pointwise=True).pareto_k.values
        print(f"{noise:9} k̂ above 0.7 in {(k > 0.7).sum()} of {k.size} months, {k.max():.2f} at most")

# %% [markdown]
# Again the difference, in nats over all 24 months, is about as large as its standard error.
#
# In ArviZ 1 the result is an `xarray.DataTree`, `hdi_prob` is named `ci_prob` (`ci_probs` in plots), `elpd_loo` is
# `elpd`, and `plot_ppc` is `plot_ppc_dist`.
