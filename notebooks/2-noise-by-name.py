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
# # Families of noise by name
#
# The hidden states of a noisy RNN are drawn around the network's transition. The distribution is chosen by name; no
# other code changes. This notebook shows the families, their effect on a state, and their effect on the validation
# perplexity of a language model.

# %%
import os
from functools import cache

import matplotlib.pyplot as plt
import pyro
import torch

import noisin_pyro as nz
from noisin_pyro import plots

# %matplotlib inline
QUICK = "NOISIN_QUICK" in os.environ  # a smaller run, for testing
EPOCHS, SEEDS, WORDS = (2, 1, 2_000) if QUICK else (8, 3, None)
BLUE, ORANGE = "#0072B2", "#D55E00"
torch.set_num_threads(1)  # the tensors are small
pyro.settings.set(module_local_params=True)  # each model has its own parameters

# %% [markdown]
# ## The families
#
# Each law is standardized to mean 0 and variance 1 and multiplied by γ, so γ is the standard deviation of the noise
# for every family. The families differ only in shape. `categorical` and `dirichlet` are joint laws over all units of
# a layer; the figure shows one unit of eight.

# %%
panels = []
for name in nz.noise.families():
    entry = nz.noise.describe(name)[0]
    options = [f"{option} = {value:g}" for option, value in entry.options.items()]
    density = nz.noise.density(nz.noise.get(name))
    points, values = density.points.tolist(), density.values.tolist()
    words = [entry.law, *options]
    panels.append(plots.Panel(name, "", words, points, values, density.discrete))
plots.families(panels, columns=3)

# %% [markdown]
# ## The effect on a state
#
# A network with fixed weights reads a slow wave, twice with each family, with γ = 0.3. The figure shows one of its
# eight units: two noisy runs in blue and orange, and the run without noise in black.

# %%
wave = torch.sin(torch.arange(50) / 4).reshape(1, 50, 1)


def draw(axes, noises, cell, spread):
    pyro.set_rng_seed(0)
    clean = nz.NoisyRNN(1, 8, cell=cell, spread=0.0)
    for axis, noise in zip(axes.flat, noises, strict=True):
        noisy = nz.NoisyRNN(1, 8, cell=cell, noise=noise, spread=spread)
        noisy.load_state_dict(clean.state_dict())
        with torch.no_grad():
            black, _ = clean(wave)
            colors, _ = noisy(wave.expand(2, -1, -1))
        unit = black.std(dim=(0, 1)).argmax()  # the one that the wave moves most
        for states, color in zip(colors, (BLUE, ORANGE), strict=True):
            axis.plot(states[:, unit], color=color, linewidth=0.8)
        axis.plot(black[0, :, unit], color="black")
        axis.set_title(noise, fontsize="medium")
    axes[0].figure.supxlabel("step", fontsize="medium")
    axes[0].figure.supylabel("state of one unit", fontsize="medium")


shared = {"sharex": True, "sharey": True, "layout": "constrained"}
figure, axes = plt.subplots(3, 4, figsize=(9, 5.5), **shared)
draw(axes.flatten(), nz.noise.families(), cell="tanh", spread=0.3)
plt.show()

# %% [markdown]
# A name may be followed by a form. *Additive* noise, the default, does not depend on the state. *Multiplicative* noise
# multiplies the state by a random number with mean 1, so a state of 0 has no noise. *Native* noise draws the state from
# the law itself, with the noise-free state as its mean: a beta law stays between 0 and 1, like the states of a sigmoid
# cell. Here γ is 0.5.

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), **shared)
draw(axes, ["beta", "beta:multiplicative", "beta:native"], cell="sigmoid", spread=0.5)
for axis in axes:
    for end in (0, 1):
        axis.axhline(end, color="grey", linewidth=0.8, linestyle=":")
plt.show()

# %% [markdown]
# ## The effect on a language model
#
# We train a small language model on the language reference included in Python: 65,000 words for training, and 8,000
# for validation, with the noise off. Without noise the model soon overfits. All twelve families have γ = 0.5.
# `gaussian` and the model without noise are trained with three seeds each, to show the variation between seeds.

# %%
corpus = nz.data.load("pydocs")
text = nz.data.Stream(corpus.train[:WORDS], batch_size=20, window=35)
held_out = nz.data.Stream(corpus.valid[:WORDS], batch_size=20, window=35)


@cache
def train(noise, spread, seed=0):
    """Validation perplexity after each pass over the text."""
    pyro.set_rng_seed(seed)
    words = len(corpus.vocabulary)
    model = nz.LanguageModel(words, hidden_size=64, noise=noise, spread=spread)
    bound = nz.PriorAsGuide_ELBO()(model)
    optimizer = torch.optim.Adam(bound.parameters(), lr=0.006)
    log = []
    for _ in range(EPOCHS):
        state = None
        for batch in text.batches():
            loss = bound(batch.inputs, batch.targets, state, batch.lengths)
            optimizer.zero_grad()
            (loss / batch.num_steps).backward()
            torch.nn.utils.clip_grad_norm_(bound.parameters(), 5.0)
            optimizer.step()
            state = bound.returned.state
        log.append(nz.evaluate(model, held_out, "mean").perplexity)
    return log


without_noise = [train("gaussian", 0.0, seed) for seed in range(SEEDS)]
noisy = {name: [train(name, 0.5)] for name in nz.noise.families()}
noisy["gaussian"] += [train("gaussian", 0.5, seed) for seed in range(1, SEEDS)]

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for name, logs in ({"no noise": without_noise} | noisy).items():
    color = "black" if name == "no noise" else BLUE
    for log in logs:
        left.plot(range(1, EPOCHS + 1), log, color=color, linewidth=1)
        right.plot(min(log), name, "o", color=color, alpha=0.7)
left.set(title="After each pass over the text", xlabel="pass", ylim=(62, 100))
left.set_ylabel("validation perplexity (lower is better)")
names = ["no noise", "γ = 0.5, twelve families"]
left.legend([left.lines[0], left.lines[-1]], names, frameon=False)
right.invert_yaxis()
right.grid(axis="x", alpha=0.3)
right.set(title="The best pass: a dot for each seed", xlabel="validation perplexity")
plt.show()

# %% [markdown]
# The models without noise begin to overfit after five or six passes. All models with noise are better at about that
# time or soon after, and at the end. The family matters less: the families differ by about as much as the seeds do,
# so these runs do not show that any family is the best.
#
# The amount of noise matters more. The next figure varies γ for Gaussian noise in two forms, with one run per dot.

# %%
SPREADS = [0.25, 0.5, 1.0]
figure, axis = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
for noise, color in (("gaussian", BLUE), ("gaussian:multiplicative", ORANGE)):
    best = [min(train(noise, spread)) for spread in SPREADS]
    axis.plot(SPREADS, best, "o-", color=color)
axis.plot([0] * len(without_noise), [min(log) for log in without_noise], "x", color="black")
axis.legend(["additive", "multiplicative", "no noise, three seeds"], frameon=False)
axis.set(xlabel="γ", ylabel="validation perplexity, best pass")
plt.show()

last = ", ".join(f"{perplexity:.1f}" for perplexity in train("gaussian", 1.0)[-3:])
print(f"additive, γ = 1, after each of the last passes: {last}")

# %% [markdown]
# In additive form, γ = 0.5 is the best of the three, and γ = 1 is worse than no noise. With γ = 1, however, the
# perplexity is still falling after eight passes, and [longer runs](../docs/results.md) benefit from more noise. In
# multiplicative form γ is relative to the state, which is smaller than 1 in a tanh cell, so the same γ means less
# noise.
#
# [Noise](../docs/noise.md) has the table of families and explains how to register your own. The next notebook draws the
# noise from [a guide](3-prior-as-guide.ipynb) instead of the prior.
