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
# # A first noisy RNN, in a Pyro program
#
# The angle of a pendulum is measured ten times a second, with large errors, in six swings of six seconds each. A
# recurrent network predicts the next measurement from the previous ones. Six swings are little data: a network of 64
# units can fit the measurement errors. Noise in its hidden states prevents this.

# %%
import os

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Predictive
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule

import noisin_pyro as nz

# %matplotlib inline
QUICK = "NOISIN_QUICK" in os.environ  # a smaller run, for testing
STEPS, RUNS, SAMPLES = (20, 2, 20) if QUICK else (1000, 5, 200)
BLUE, ORANGE = "#0072B2", "#D55E00"
ABOVE = {"loc": "outside upper center", "frameon": False}  # a legend
torch.set_num_threads(1)  # the tensors are small
pyro.settings.set(module_local_params=True)  # each model has its own parameters

# %% [markdown]
# ## The data
#
# A rod of one meter with a little friction is released at a random angle. The equation of motion is solved in small
# steps, and the measurement error has a standard deviation of 0.2 radians.


# %%
def swings(count, steps=60, error=0.2):
    """True angles and measured ones, (count, steps + 1, 1), every tenth of a second."""
    angle, speed = 5.0 * torch.rand(count) - 2.5, torch.zeros(count)
    angles = []
    for _ in range(steps + 1):
        angles.append(angle)
        for _ in range(10):
            speed = speed - 0.01 * (9.81 * angle.sin() + 0.2 * speed)
            angle = angle + 0.01 * speed
    angles = torch.stack(angles, dim=1).unsqueeze(-1)
    return angles, angles + error * torch.randn_like(angles)


pyro.set_rng_seed(1)
true_angles, measured = swings(6)
held_out_true, held_out = swings(200)
seconds = torch.arange(61) / 10

figure, axes = plt.subplots(2, 3, figsize=(9, 3.8), layout="constrained")
for index, axis in enumerate(axes.flat):
    axis.plot(seconds, true_angles[index, :, 0], color="black", linewidth=1)
    axis.plot(seconds, measured[index, :, 0], ".", color=BLUE, markersize=4)
    axis.set_ylim(-3, 3)
figure.supxlabel("time (s)", fontsize="medium")
figure.supylabel("angle (rad)", fontsize="medium")
names = ["true angle", "measured"]
figure.legend(axis.lines, names, ncols=2, **ABOVE)
plt.show()

# %% [markdown]
# ## The program
#
# `NoisyRNN` replaces `torch.nn.RNN`, here with one input and 64 units. It adds one sample site, `z_1`, the whole
# trajectory of the hidden state. Each step is drawn around the network's transition with standard deviation γ, the
# `spread`. The program has another latent site, the standard deviation `error` of the measurements, which we treat as
# unknown.


# %%
class Pendulum(PyroModule):
    def __init__(self, spread):
        super().__init__()
        self.rnn = nz.NoisyRNN(1, 64, noise="gaussian", spread=spread)
        self.readout = PyroModule[torch.nn.Linear](64, 1)

    def forward(self, x, y=None):
        error = pyro.sample("error", dist.LogNormal(-1.0, 1.0))
        with pyro.plate("swings", len(x)):
            z, _ = self.rnn(x)
            pyro.sample("y", dist.Normal(self.readout(z), error).to_event(2), obs=y)
        return z


x, y = measured[:, :-1], measured[:, 1:]
trace = poutine.trace(Pendulum(spread=0.3)).get_trace(x, y)
for name in ("error", "z_1", "y"):
    print(f"{name:7}{tuple(trace.nodes[name]['value'].shape)}")

# %% [markdown]
# ## Training
#
# `PriorAsGuide_ELBO` is an ELBO with one rule: *a latent site that the guide does not sample is drawn from its prior,
# and costs no KL.* Hence a guide over `error` alone is sufficient, here Pyro's `AutoNormal`; the hidden states are
# drawn from the model. A training step runs the network once, forward and backward, as for a deterministic network.
#
# We train with γ = 0.3 and, with otherwise equal settings, with γ = 0, which is `torch.nn.RNN`: the deterministic
# twin. During training we record the prediction errors with the noise off (`noise_off`), on the six swings and on 200
# held-out swings.


# %%
def off_by(model, angles):
    """Root mean square error of the predicted measurements, in radians."""
    with torch.no_grad():
        predicted = model.readout(nz.noise_off(model)(angles[:, :-1]))
    return (predicted - angles[:, 1:]).square().mean().sqrt().item()


def train(spread, seed):
    pyro.set_rng_seed(seed)
    model = Pendulum(spread)
    guide = AutoNormal(poutine.block(model, expose=["error"]))
    guide(x, y)  # initializes its parameters
    bound = nz.PriorAsGuide_ELBO()(model, guide)
    optimizer = torch.optim.Adam(bound.parameters(), lr=0.003)
    log = []
    for step in range(STEPS + 1):
        if step % 10 == 0:
            log.append((step, off_by(model, measured), off_by(model, held_out)))
        loss = bound(x, y)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(bound.parameters(), 10.0)
        optimizer.step()
    return model, guide, torch.tensor(log)


runs = {spread: [train(spread, seed) for seed in range(RUNS)] for spread in (0.0, 0.3)}

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
for axis, (spread, models) in zip(axes, runs.items(), strict=True):
    steps, training, other = torch.stack([log for _, _, log in models]).unbind(-1)
    for curve, color in ((training, ORANGE), (other, BLUE)):
        low, high = curve.amin(0), curve.amax(0)
        axis.fill_between(steps[0], low, high, color=color, alpha=0.25, linewidth=0)
        axis.plot(steps[0], curve.mean(0), color=color)
    axis.axhline(0.2, color="black", linestyle="--", linewidth=1)
    axis.set(title=f"γ = {spread:g}", xlabel="step of training", ylim=(0, 0.6))
axes[0].set_ylabel("error of predictions (rad)")
names = ["the six swings", "200 other swings", "error of measurement"]
axes[1].legend(axes[1].lines, names, frameon=False)
plt.show()

for spread, models in runs.items():
    other = torch.stack([log for _, _, log in models])[..., 2].mean(0)
    best = f"{other.min():.3f} rad after step {10 * other.argmin()}"
    print(f"γ = {spread:g}: in other swings at best {best}, at the end {other[-1]:.3f}")

# %% [markdown]
# Lines are means of five runs from different initial weights, and bands show the range from the best run to the
# worst. Without noise, the training error falls far below the measurement error: the twin overfits, and its
# predictions of other swings get worse and worse. If it were stopped at its best step, it would be nearly as good as
# the noisy network, but this step can only be found on held-out swings. With noise, early stopping is not needed.
#
# ## How the noise acts
#
# The figure shows three of the 64 units along a held-out swing. Every state is drawn around the network's transition
# *from the previous noisy state*: the noise propagates through the network, so the runs do not stay within γ of the
# black line.

# %%
noisy, _, _ = runs[0.3][0]
swing = held_out[:1]
with torch.no_grad():
    paths = torch.cat([noisy(swing[:, :-1]) for _ in range(20)])
    path = nz.noise_off(noisy)(swing[:, :-1])[0]

figure, axes = plt.subplots(1, 3, figsize=(9, 3), sharey=True, layout="constrained")
for unit, axis in enumerate(axes):
    axis.plot(seconds[1:], paths[..., unit].T, color=BLUE, linewidth=0.5, alpha=0.6)
    axis.plot(seconds[1:], path[:, unit], color="black")
    axis.set(title=f"unit {unit + 1}", xlabel="time (s)")
axes[0].set_ylabel("state")
names = ["runs with noise", "noise off"]
figure.legend(axis.lines[-2:], names, ncols=2, **ABOVE)
plt.show()

# %% [markdown]
# ## Predictions
#
# The model is a Pyro program, so Pyro's tools apply to it. `Predictive` draws measurements from the noisy network and
# from the twin, with `error` drawn from each guide. The bands contain 90% of the draws.

# %%
bands = {}
for spread, models in runs.items():
    model, guide, _ = models[0]
    predictive = Predictive(model, guide=guide, num_samples=SAMPLES)
    draws = predictive(held_out[:, :-1])["y"].squeeze(-1)
    bands[spread] = draws.quantile(torch.tensor([0.05, 0.95]), dim=0)

figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), sharey=True, layout="constrained")
for axis, (spread, (low, high)) in zip(axes, bands.items(), strict=True):
    axis.fill_between(seconds[1:], low[0], high[0], color=BLUE, alpha=0.25, linewidth=0)
    axis.plot(seconds[1:], held_out_true[0, 1:, 0], color="black", linewidth=1)
    axis.plot(seconds[1:], held_out[0, 1:, 0], ".", color=BLUE, markersize=4)
    axis.set(title=f"γ = {spread:g}", xlabel="time (s)")
axes[0].set_ylabel("angle (rad)")
names = ["predicted (9 in 10)", "true angle", "measured"]
figure.legend(axis.get_children()[:3], names, ncols=3, **ABOVE)
plt.show()

for spread, (low, high) in bands.items():
    inside = ((low < held_out[:, 1:, 0]) & (held_out[:, 1:, 0] < high)).float().mean()
    print(f"γ = {spread:g}: {inside:.0%} of the measurements in other swings inside")

# %% [markdown]
# The twin's bands contain too few of the measurements: its predictions are overconfident. These numbers are for one
# data set of six swings; other data sets give other numbers.
#
# [The model](../docs/model.md) and [the bound](../docs/inference.md) are explained in the documentation. The next
# notebook uses [other families of noise](2-noise-by-name.ipynb).
