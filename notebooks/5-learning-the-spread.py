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
from noisin_pyro.training import Inference, Model, Noise, Optimisation, Run

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
    rnn = nz.NoisyRNN(input_size=1, hidden_size=1, cell="identity", noise="gaussian", spread=0.0)
    model = nz.SequenceModel(rnn, emission="gaussian", output_size=1).requires_grad_(False)
    for parameter in [*rnn.parameters(), *model.emission.linear.parameters()]:
        parameter.zero_()
    rnn.weight_hh_l0.fill_(CARRIED)
    model.emission.linear.weight.fill_(1.0)
    rnn.spread_1 = nz.Spread(spread) if isinstance(spread, float) else spread
    return model


lag = torch.arange(STEPS)[:, None] - torch.arange(STEPS)
powers = torch.where(lag >= 0, CARRIED ** lag.clamp(min=0), 0.0)  # what is left of the noise of step s in step t


def exact(spread):
    """-log p(x) in nats per step."""
    covariance = spread**2 * powers @ powers.T + torch.eye(STEPS)
    return -dist.MultivariateNormal(torch.zeros(STEPS), covariance).log_prob(x.squeeze(-1)).mean().item() / STEPS


pyro.set_rng_seed(0)
inputs = torch.zeros(SEQUENCES, STEPS, 1)
x = poutine.trace(linear_gaussian(0.5)).get_trace(inputs).nodes["x"]["value"]
fine = torch.linspace(0.3, 0.7, 401).tolist()
likeliest = min(fine, key=exact)
print(f"likeliest γ: {likeliest:.3f}")

# %% [markdown]
# Three objectives, as functions of γ: the exact one; the importance bound, the log-mean-exp of S noisy runs, which for
# S = 1 is equation (1); and nothing is trained yet.


# %%
@torch.no_grad()
def objective(spread, samples):
    pyro.set_rng_seed(0)  # the same noise for every γ
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
# Under equation (1) any noise is a loss: the average over the noise is of log p(x | z), and a z that was drawn without a
# look at x fits x worse the further it strays. With S samples the best of them counts most, so some noise pays; but S
# would have to grow with the length of the sequences, exponentially.
#
# ## γ along training
#
# A guide draws z with a look at x, so that it can afford noise. Here are five ways to learn γ, each step on all
# sequences; the guides are trained at the same time.

# %%
START, FLOOR = 0.3, 0.1  # of γ; the floor is the paper's


def learn(samples=1, bound="elbo", guide_name=None, floor=FLOOR):
    pyro.set_rng_seed(0)
    model = linear_gaussian(nz.Spread(START, floor=floor, learn=True))
    view, guide = model, None
    if guide_name is not None:
        view, guide = nz.innovations(model), nz.guides.get(guide_name, model, hidden_size=16)
    objective = nz.PriorAsGuide_ELBO(samples, bound=bound, max_plate_nesting=1)(view, guide)
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=0.03)
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
# Equation (1) ends at the floor, and without one further down, on its way to zero. Importance samples stop in between,
# at the lowest points of the picture above. The smoothing guide, which contains the posterior, finds the likeliest γ.
# The mean-field guide does not contain it, and ends no higher than five samples: it pays for every bit of noise that it
# cannot place.
#
# ## On a text
#
# Python's language reference, about 70,000 words to train on; one tanh layer of 64 units, Gaussian noise. Now all
# weights are learned too, and what γ is for is to keep them from learning the text by heart. Each run goes on until
# validation has not improved for two passes, and keeps its best model. First the grid of the paper, fixed spreads.

# %%
folder = tempfile.TemporaryDirectory()


def run(name, noise, inference=Inference(), **how):
    config = nz.Config(
        model=Model(hidden_size=64),
        noise=noise,
        inference=inference,
        optimisation=Optimisation(learning_rate=0.01, epochs=EPOCHS, patience=2, **how),
        run=Run(folder=Path(folder.name) / name, twin=False, ensemble_samples=0),
    )
    with contextlib.redirect_stderr(io.StringIO()):  # the progress of each pass
        return nz.train(config)


def told(name, result):
    gamma = result.log[result.best_epoch - 1].get("gamma_1", 0.0)
    print(
        f"{name:30} pass {result.best_epoch} of {len(result.log)}, γ {gamma:.3f}, "
        f"validation {result.valid.perplexity:5.1f}, test {result.test.perplexity:5.1f}"
    )


grid = {f"γ = {gamma:g}": run(f"fixed-{gamma}", Noise(spread=gamma)) for gamma in FIXED}
print("perplexities with the noise off")
for name, result in grid.items():
    told(name, result)
plots.learning_curves({name: result.log for name, result in grid.items()})

# %% [markdown]
# Then γ learned with the weights, from 0.5: by equation (1) with the paper's floor, without a floor (there stopping early
# alone keeps γ from zero), by the importance bound, and with a mean-field guide.

# %%
learned = {
    "equation (1), floor 0.1": run("floor", Noise(spread=0.5, learn_spread=True)),
    "equation (1), stopped early": run("early", Noise(spread=0.5, learn_spread=True, spread_floor=0.0)),
    "importance, S = 5": run("importance", Noise(spread=0.5, learn_spread=True), particles=5, bound="importance"),
    "mean-field guide": run(
        "guide", Noise(spread=0.5, learn_spread=True), Inference(guide="mean-field", hidden_size=32)
    ),
}
for name, result in learned.items():
    told(name, result)
figure, axis = plt.subplots(figsize=(8, 4.4), layout="constrained")
plots.learned_spreads({name: result.log for name, result in learned.items()}, axis, "Text, everything learned", floor=0.1)
plt.show()
folder.cleanup()
