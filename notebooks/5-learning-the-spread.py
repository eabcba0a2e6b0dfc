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
# # Learning the spread of the noise
#
# γ says how much noise a layer gets, and so how strongly it is regularised. The paper treats it as a parameter like any
# other, learned with the weights by equation (1), the log-likelihood averaged over the noise: empirical Bayes. It warns
# that γ then goes to zero, and names the remedies: a floor, stopping early, a grid and a validation set. Here is why it
# goes to zero, what other objectives make of it, and what the remedies do on a text.

# %%
import contextlib
import io
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

import noisin_pyro as nz
from noisin_pyro import plots
from noisin_pyro.training import Inference, Model, Noise, Optimization, Run

# %matplotlib inline
QUICK = "NOISIN_QUICK" in os.environ  # a smaller run, to see that everything works
SEQUENCES, GRADIENT_STEPS = (50, 20) if QUICK else (400, 400)
FIXED, EPOCHS = ((0.0, 0.5), 1) if QUICK else ((0.0, 0.25, 0.5, 1.0), 8)
torch.set_num_threads(1)  # the tensors are small
pyro.settings.set(module_local_params=True)  # each model has its own parameters

# %% [markdown]
# ## Where the likeliest γ is known
#
# With the identity for a cell, and Gaussian noise and emission, the network is a linear-Gaussian model:
# $z_t = 0.9\, z_{t-1} + \gamma\, \epsilon_t$, and $x_t$ is $z_t$ with an error of variance 1. Its log p(x) is exact, so
# the γ under which the data are likeliest can be found. The data are drawn with γ = 0.5; everything but γ is known.

# %%
STEPS, CARRIED = 20, 0.9


def linear_gaussian(spread):
    rnn = nz.NoisyRNN(input_size=1, hidden_size=1, cell="identity", noise="gaussian", spread=spread)
    model = nz.SequenceModel(rnn, emission="gaussian", output_size=1)
    no = {name: torch.zeros(1) for name in ("bias_ih_l0", "bias_hh_l0")}
    rnn.load_state_dict({"weight_hh_l0": torch.full((1, 1), CARRIED), "weight_ih_l0": torch.zeros(1, 1)} | no)
    model.emission.linear.load_state_dict({"weight": torch.ones(1, 1), "bias": torch.zeros(1)})
    return model


lag = torch.arange(STEPS)[:, None] - torch.arange(STEPS)
powers = torch.where(lag >= 0, CARRIED ** lag.clamp(min=0), 0.0)  # what is left of the noise of step s in step t


def exact(spread):
    """-log p(x) in nats per step."""
    covariance = spread**2 * powers @ powers.T + torch.eye(STEPS)
    return -dist.MultivariateNormal(torch.zeros(STEPS), covariance).log_prob(x.squeeze(-1)).mean().item() / STEPS


pyro.set_rng_seed(0)
inputs = torch.zeros(SEQUENCES, STEPS, 1)
x = poutine.trace(linear_gaussian(0.5)).get_trace(inputs).nodes["x"]["value"].detach()
fine = torch.linspace(0.3, 0.7, 401).tolist()
likeliest = min(fine, key=exact)
print(f"likeliest γ: {likeliest:.3f}")

# %% [markdown]
# As functions of γ: the exact log p(x), equation (1), and the importance bound, which takes the logarithm of the mean
# likelihood of S noisy runs where equation (1) takes the mean of the logarithm. Nothing is trained yet.


# %%
@torch.no_grad()
def objective(spread, samples):
    pyro.set_rng_seed(1)  # the same noise for every γ, and not that of the data
    model = linear_gaussian(spread)
    if samples == 1:
        return nz.PriorAsGuide_ELBO(50)(model)(inputs, x).item() / x.numel()  # the mean of 50
    return nz.PriorAsGuide_ELBO(samples, bound="importance")(model)(inputs, x).item() / x.numel()


gammas = torch.linspace(0.02, 1.0, 50).tolist()
curves = {"equation (1)": [objective(gamma, 1) for gamma in gammas]}
curves |= {f"importance, S = {S}": [objective(gamma, S) for gamma in gammas] for S in (5, 50)}
curves["exact"] = [exact(gamma) for gamma in gammas]

figure, axis = plt.subplots(figsize=(8, 3.8), layout="constrained")
for (name, values), colour in zip(curves.items(), ("#0072B2", "#D55E00", "#009E73", "black"), strict=True):
    axis.plot(gammas, values, color=colour, label=name)
    best = min(range(len(gammas)), key=values.__getitem__)
    axis.plot(gammas[best], values[best], "o", color=colour)
    print(f"{name:20} lowest at γ = {gammas[best]:.2f}")
axis.set(xlabel="γ (standard deviation)", ylabel="nats per step (lower is better)", ylim=(1.6, 2.3))
axis.set_title("What each objective says of γ (dots: where it is lowest)")
axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# Under equation (1) any noise is a loss: it averages log p(x | z), and a z that was drawn without a look at x fits the
# worse, the further it strays. Under the importance bound the best of the S runs counts most, so that some noise pays;
# but the lowest point is still short of the likeliest γ, and the longer the sequences, the more runs it would take.
#
# ## γ along training
#
# A guide draws z with a look at x, so that it can afford noise. Now γ is learned, in six ways, and the guides with it.
# An epoch is one step on all sequences.

# %%
START, FLOOR = 0.3, 0.1  # of γ; the floor is the paper's


def learn(samples=1, bound="elbo", guide_name=None, floor=FLOOR):
    pyro.set_rng_seed(1)
    model = linear_gaussian(nz.Spread(START, floor=floor, learn=True))
    guide = None if guide_name is None else nz.guides.get(guide_name, model, hidden_size=16)
    objective = nz.PriorAsGuide_ELBO(samples, bound=bound, max_plate_nesting=1)(model, guide)
    learned = [*model.rnn.spread_1.parameters()] + ([] if guide is None else [*guide.parameters()])
    optimizer = torch.optim.Adam(learned, lr=0.03)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, GRADIENT_STEPS)
    log = [{"epoch": 0} | model.rnn.spreads()]
    for epoch in range(1, GRADIENT_STEPS + 1):
        loss = objective(inputs, x) / x.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if epoch % 5 == 0:
            log.append({"epoch": epoch} | model.rnn.spreads())
    return log


logs = {
    "equation (1)": learn(),
    "equation (1), no floor": learn(floor=0.0),
    "importance, S = 5": learn(5, "importance"),
    "importance, S = 50": learn(50, "importance"),
    "mean-field guide": learn(guide_name="mean-field"),
    "smoothing guide": learn(guide_name="smoothing"),
}
for name, log in logs.items():
    print(f"{name:24} γ = {log[-1]['gamma_1']:.3f}")
figure, axis = plt.subplots(figsize=(8, 4.4), layout="constrained")
plots.learned_spreads(logs, axis, "Linear-Gaussian model, γ alone learned", likeliest, FLOOR)
plt.show()

# %% [markdown]
# Equation (1) ends near the floor, and without one further down, on its way to zero. With importance samples γ stops
# where the bound above is lowest. The smoothing guide, which can be the posterior, finds the likeliest γ. The
# mean-field guide cannot, and pays for noise that it cannot place: it does no better than five samples.
#
# ## On a text: the grid
#
# The text is Python's own language reference; the network has one tanh layer of 64 units, and Gaussian noise. Now the
# weights are learned too, and γ has another task: to keep them from learning the text by heart. Each run stops when
# validation has not improved for two epochs, or after eight, and keeps its best model. First the paper's grid: γ fixed,
# and validation to choose.

# %%
folder = tempfile.TemporaryDirectory()


def run(name, noise, guide="prior", **how):
    config = nz.Config(
        model=Model(hidden_size=64),
        noise=noise,
        inference=Inference(guide=guide, hidden_size=None if guide == "prior" else 32),
        optimization=Optimization(learning_rate=0.01, epochs=EPOCHS, patience=2, **how),
        run=Run(folder=Path(folder.name) / name, twin=False, ensemble_samples=0),
    )
    with contextlib.redirect_stderr(io.StringIO()):  # the progress of each pass
        return nz.train(config)


def tell(results):
    for name, result in results.items():
        print(
            f"{name:27} best epoch {result.best_epoch} of {len(result.log)}, γ {kept(result):.3f}, "
            f"validation {result.valid.perplexity:5.1f} ({result.valid.kind}), test {result.test.perplexity:5.1f}"
        )


def kept(result):
    """γ of the best model."""
    return result.log[result.best_epoch - 1].get("gamma_1", 0.0)


grid = {f"γ = {gamma:g}": run(f"fixed-{gamma}", Noise(spread=gamma)) for gamma in FIXED}
print("perplexities, noise off")
tell(grid)
plots.learning_curves({name: result.log for name, result in grid.items()})

# %% [markdown]
# Without noise the network learns the text by heart: it is the best of the four in training, and in validation the
# worst. Validation chooses γ = 0.5, and the test agrees. With γ = 1 learning is slow, and not at its end.
#
# ## On a text: γ learned
#
# Then γ learned with the weights, from 0.5: by equation (1) with the paper's floor; without a floor, where stopping
# early is all that keeps γ from zero; by the importance bound; and with a mean-field guide, which is validated by its
# own bound.

# %%
learn_it = Noise(spread=0.5, learn_spread=True)
learned = {
    "equation (1), floor 0.1": run("floor", learn_it),
    "equation (1), stopped early": run("early", Noise(spread=0.5, learn_spread=True, spread_floor=0.0)),
    "importance, S = 5": run("importance", learn_it, particles=5, bound="importance"),
    "mean-field guide": run("guide", learn_it, guide="mean-field"),
}
print("perplexities, noise off but for the bound")
tell(learned)
logs = {name: [{"epoch": 0, "gamma_1": 0.5}, *result.log] for name, result in learned.items()}
figure, axis = plt.subplots(figsize=(8, 4.4), layout="constrained")
plots.learned_spreads(logs, axis, "Text, everything learned", floor=FLOOR)
plt.show()

# %% [markdown]
# Every objective takes γ down, and the three with a floor along nearly the same line, though one of them has a guide.
# Beside the grid:

# %%
figure, axis = plt.subplots(figsize=(8, 3.8), layout="constrained")
axis.plot(FIXED, [result.test.perplexity for result in grid.values()], "o-", color="black", label="fixed γ")
colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
for (name, result), colour, marker in zip(learned.items(), colours, "sD^v", strict=True):
    axis.plot(kept(result), result.test.perplexity, marker, color=colour, label=name)
axis.set(xlabel="γ of the best model (standard deviation)", ylabel="test perplexity, noise off")
axis.set_title("Fixed and learned spreads on the text (lower is better)")
axis.grid(alpha=0.3)
axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
folder.cleanup()

# %% [markdown]
# ## What to make of it
#
# - **Equation (1) takes γ down by its nature.** In the linear-Gaussian model the data came from γ = 0.5, and equation
#   (1) would rather have none. The floor decides where it ends.
# - **A better bound can do better, if it is good enough.** The smoothing guide finds the likeliest γ there. Importance
#   samples and the mean-field guide fall short, though by much less than equation (1).
# - **On the text no objective helped.** Where the weights are learned from the same words, less noise and weights that
#   fit those words make them likelier, however well the noise is averaged over. That the network overfits cannot be
#   seen in training. Only validation sees it, and the grid listens to it: its γ of 0.5 has the best validation of all
#   networks without a guide, and the best test of all.
# - **The remedies are worth something.** With a floor or stopped early, γ is small when the best model is kept, and
#   that model is better in the test than the one without noise. So is the one with a guide, the best of the four
#   learned.
#
# A learned γ takes one run, a grid as many as it has points. These are single runs from one seed, and differences of a
# point or so of perplexity may be that seed's. The same on the chorales, at greater length, is under
# [Results](../docs/results.md); the bounds are explained under [Inference](../docs/inference.md), and [in another
# notebook](3-prior-as-guide.ipynb).
