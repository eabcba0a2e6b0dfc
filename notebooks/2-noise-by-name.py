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
# # Another noise, by its name
#
# The hidden states of a noisy RNN are drawn around the network's own transition. From which law is said by a name, and
# nothing else in a program changes with it. Here are the names, what each law does to a state, and what some of them
# are worth to a language model.

# %%
import os
from functools import cache

import matplotlib.pyplot as plt
import pyro
import torch

import noisin_pyro as nz
from noisin_pyro import plots

# %matplotlib inline
QUICK = "NOISIN_QUICK" in os.environ  # a smaller run, to see that everything works
EPOCHS, SEEDS, WORDS = (2, 1, 2_000) if QUICK else (8, 3, None)
BLUE, ORANGE = "#0072B2", "#D55E00"
torch.set_num_threads(1)  # the tensors are small
pyro.settings.set(module_local_params=True)  # each model has its own parameters

# %% [markdown]
# ## The laws
#
# Each law is brought to mean 0 and variance 1, so that γ, which multiplies it, is the standard deviation of the noise
# for all of them. What is left to differ is the shape. `categorical` and `dirichlet` are laws over all the units of a
# layer at once; one unit of eight is shown.

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
# ## What they do to a state
#
# One network with fixed weights reads a slow wave, twice under each law, always with γ = 0.3. Shown is one of its eight
# units: blue and orange in the two noisy runs, black with the noise off.

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
            colours, _ = noisy(wave.expand(2, -1, -1))
        unit = black.std(dim=(0, 1)).argmax()  # the one that the wave moves most
        for states, colour in zip(colours, (BLUE, ORANGE), strict=True):
            axis.plot(states[:, unit], color=colour, linewidth=0.8)
        axis.plot(black[0, :, unit], color="black")
        axis.set_title(noise, fontsize="medium")
    axes[0].figure.supxlabel("step", fontsize="medium")
    axes[0].figure.supylabel("state of one unit", fontsize="medium")


shared = {"sharex": True, "sharey": True, "layout": "constrained"}
figure, axes = plt.subplots(3, 4, figsize=(9, 5.5), **shared)
draw(axes.flatten(), nz.noise.families(), cell="tanh", spread=0.3)
plt.show()

# %% [markdown]
# After the name comes the form. *Additive* noise, the default, is the same wherever the state is. *Multiplicative*
# noise is the state times a number around 1, so a state of 0 has none. *Native* noise is the law itself, with the state
# that would be without noise as its mean: a beta law stays between 0 and 1, as a sigmoid cell's states do. γ is 0.5.

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), **shared)
draw(axes, ["beta", "beta:multiplicative", "beta:native"], cell="sigmoid", spread=0.5)
for axis in axes:
    for end in (0, 1):
        axis.axhline(end, color="grey", linewidth=0.8, linestyle=":")
plt.show()

# %% [markdown]
# ## What they are worth
#
# A small language model reads the language reference that every Python carries: 65,000 words, and 8,000 others to
# validate with, always with the noise off. Without noise it soon learns the text by heart, so there is something to
# gain. All twelve families have γ = 0.5; `gaussian` and the model without noise are trained from three seeds, to show
# what chance alone does.

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


silent = [train("gaussian", 0.0, seed) for seed in range(SEEDS)]
noisy = {name: [train(name, 0.5)] for name in nz.noise.families()}
noisy["gaussian"] += [train("gaussian", 0.5, seed) for seed in range(1, SEEDS)]

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for name, logs in ({"no noise": silent} | noisy).items():
    colour = "black" if name == "no noise" else BLUE
    for log in logs:
        left.plot(range(1, EPOCHS + 1), log, color=colour, linewidth=1)
        right.plot(min(log), name, "o", color=colour, alpha=0.7)
left.set(title="After each pass over the text", xlabel="pass", ylim=(62, 100))
left.set_ylabel("validation perplexity (lower is better)")
names = ["no noise", "γ = 0.5, twelve families"]
left.legend([left.lines[0], left.lines[-1]], names, frameon=False)
right.invert_yaxis()
right.grid(axis="x", alpha=0.3)
right.set(title="The best pass: a dot for each seed", xlabel="validation perplexity")
plt.show()

# %% [markdown]
# Those without noise begin to overfit after five or six passes; all those with noise are better by then or soon after,
# and end better. Which law the noise has matters less: the families differ by about as much as seeds do, so these runs
# do not say that any is the best.
#
# How much noise matters more. Here is γ, for Gaussian noise in two forms, one run for each dot.

# %%
SPREADS = [0.25, 0.5, 1.0]
figure, axis = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
for noise, colour in (("gaussian", BLUE), ("gaussian:multiplicative", ORANGE)):
    best = [min(train(noise, spread)) for spread in SPREADS]
    axis.plot(SPREADS, best, "o-", color=colour)
axis.plot([0] * len(silent), [min(log) for log in silent], "x", color="black")
axis.legend(["additive", "multiplicative", "no noise, three seeds"], frameon=False)
axis.set(xlabel="γ", ylabel="validation perplexity, best pass")
plt.show()

last = ", ".join(f"{perplexity:.1f}" for perplexity in train("gaussian", 1.0)[-3:])
print(f"additive, γ = 1, after each of the last passes: {last}")

# %% [markdown]
# Of these three, half is the best, and γ = 1 is worse than no noise; but after eight passes it is not done, and
# [longer runs](../docs/results.md) can take more noise. In the multiplicative form γ is relative to the state, which in
# a tanh cell is smaller than 1, so the same γ is less noise.
#
# [Noise](../docs/noise.md) has the table of families, and how to register one of your own. The next notebook asks what
# else the noise could be drawn from: [a guide](3-prior-as-guide.ipynb).
