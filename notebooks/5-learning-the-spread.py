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
# γ sets the amount of noise in a layer, and thus the strength of the regularization. The paper treats γ as a
# parameter and learns it with the weights by equation (1), the log-likelihood averaged over the noise (empirical
# Bayes). It notes that γ then tends to zero, and suggests remedies: a floor, early stopping, and a grid with a
# validation set. This notebook shows why γ tends to zero, compares three other objectives, and tests the remedies on
# a text.

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
QUICK = "NOISIN_QUICK" in os.environ  # a smaller run, for testing
SEQUENCES, GRADIENT_STEPS = (50, 20) if QUICK else (400, 400)
FIXED, EPOCHS = ((0.0, 0.5), 1) if QUICK else ((0.0, 0.25, 0.5, 1.0), 8)
torch.set_num_threads(1)  # the tensors are small
pyro.settings.set(module_local_params=True)  # each model has its own parameters

# %% [markdown]
# ## A model with known maximum-likelihood γ
#
# With the identity cell and Gaussian noise and emission, the network is a linear-Gaussian model:
# $z_t = 0.9\, z_{t-1} + \gamma\, \epsilon_t$, and $x_t$ is $z_t$ plus an error of variance 1. Its log p(x) is known
# exactly, and so is the maximum-likelihood γ. The data are drawn with γ = 0.5; all other parameters are known.

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
powers = torch.where(lag >= 0, CARRIED ** lag.clamp(min=0), 0.0)  # effect of the noise of step s on z_t


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
# The next figure shows three functions of γ: the exact log p(x), equation (1), and the importance bound. The importance
# bound is the logarithm of the mean likelihood of S noisy runs; equation (1) is the mean of the logarithm. Nothing is
# trained yet.


# %%
@torch.no_grad()
def objective(spread, samples):
    pyro.set_rng_seed(1)  # the same noise for every γ, different from that of the data
    model = linear_gaussian(spread)
    if samples == 1:
        return nz.PriorAsGuide_ELBO(50)(model)(inputs, x).item() / x.numel()  # the mean of 50
    return nz.PriorAsGuide_ELBO(samples, bound="importance")(model)(inputs, x).item() / x.numel()


gammas = torch.linspace(0.02, 1.0, 50).tolist()
curves = {"equation (1)": [objective(gamma, 1) for gamma in gammas]}
curves |= {f"importance, S = {S}": [objective(gamma, S) for gamma in gammas] for S in (5, 50)}
curves["exact"] = [exact(gamma) for gamma in gammas]

figure, axis = plt.subplots(figsize=(8, 3.8), layout="constrained")
for (name, values), color in zip(curves.items(), ("#0072B2", "#D55E00", "#009E73", "black"), strict=True):
    axis.plot(gammas, values, color=color, label=name)
    best = min(range(len(gammas)), key=values.__getitem__)
    axis.plot(gammas[best], values[best], "o", color=color)
    print(f"{name:20} lowest at γ = {gammas[best]:.2f}")
axis.set(xlabel="γ (standard deviation)", ylabel="nats per step (lower is better)", ylim=(1.6, 2.3))
axis.set_title("What each objective says of γ (dots: where it is lowest)")
axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# Under equation (1) any noise increases the loss: it averages log p(x | z) over z drawn independently of x, which
# fits worse the larger the noise is. Under the importance bound the best of the S runs has the largest weight, so
# that some noise decreases the loss. Its minimum is still below the maximum-likelihood γ, and longer sequences need
# more runs.
#
# ## γ during training
#
# A guide conditions z on x, so that noise can improve its bound. The filtering bound needs no guide: it is the
# likelihood as a particle filter estimates it, whose particles are weighted by x at every step and resampled. Now γ is
# learned in seven ways, together with the guides. An epoch is one gradient step on all sequences.

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
    "filtering bound, no floor": learn(20, "filtering", floor=0.0),
}
for name, log in logs.items():
    print(f"{name:25} γ = {log[-1]['gamma_1']:.3f}")
figure, axis = plt.subplots(figsize=(8, 4.4), layout="constrained")
plots.learned_spreads(logs, axis, "Linear-Gaussian model, γ alone learned", likeliest, FLOOR)
plt.show()

# %% [markdown]
# With equation (1) γ ends near the floor; without a floor it continues towards zero. With importance samples γ stops
# at the minimum of the bound in the previous figure. The smoothing family contains the posterior, and its guide finds
# the maximum-likelihood γ. The mean-field family does not contain the posterior, so noise improves its bound less;
# its γ is no better than that of five importance samples. The filtering bound comes close to the maximum-likelihood γ
# with twenty particles, without a guide and without a floor. Its bias is of the order of one over the number of
# particles.
#
# ## On a text: the grid
#
# The text is Python's language reference; the network has one tanh layer of 64 units with Gaussian noise. Now the
# weights are learned too, and the purpose of γ is to prevent overfitting. Each run stops after two epochs without an
# improvement in validation, or after eight epochs, and the best model is used. First we try the paper's grid: γ is
# fixed, and chosen on validation data.

# %%
folder = tempfile.TemporaryDirectory()


def run(name, noise, guide="prior", **options):
    config = nz.Config(
        model=Model(hidden_size=64),
        noise=noise,
        inference=Inference(guide=guide, guide_hidden_size=None if guide == "prior" else 32),
        optimization=Optimization(learning_rate=0.01, epochs=EPOCHS, patience=2, **options),
        run=Run(folder=Path(folder.name) / name, twin=False, ensemble_samples=0),
    )
    with contextlib.redirect_stderr(io.StringIO()):  # the progress of each epoch
        return nz.train(config)


def report(results):
    for name, result in results.items():
        print(
            f"{name:27} best epoch {result.best_epoch} of {len(result.log)}, γ {best_gamma(result):.3f}, "
            f"validation {result.valid.perplexity:5.1f} ({result.valid.kind}), test {result.test.perplexity:5.1f}"
        )


def best_gamma(result):
    """γ at the best epoch."""
    return result.log[result.best_epoch - 1].get("gamma_1", 0.0)


grid = {f"γ = {gamma:g}": run(f"fixed-{gamma}", Noise(spread=gamma)) for gamma in FIXED}
print("perplexities, noise off")
report(grid)
plots.learning_curves({name: result.log for name, result in grid.items()})

# %% [markdown]
# Without noise the network overfits: of the four, it is the best in training and the worst in validation. Validation
# selects γ = 0.5, which is also the best on test data. With γ = 1 learning is slow and has not converged.
#
# ## On a text: γ learned
#
# Next, γ is learned with the weights, starting from 0.5: by equation (1) with the paper's floor; without a floor,
# where only early stopping keeps γ from zero; by the importance bound; and with a mean-field guide, for which
# validation uses its bound.

# %%
learn_it = Noise(spread=0.5, learn_spread=True)
learned = {
    "equation (1), floor 0.1": run("floor", learn_it),
    "equation (1), stopped early": run("early", Noise(spread=0.5, learn_spread=True, spread_floor=0.0)),
    "importance, S = 5": run("importance", learn_it, num_particles=5, bound="importance"),
    "mean-field guide": run("guide", learn_it, guide="mean-field"),
}
print("perplexities, noise off but for the bound")
report(learned)
logs = {name: [{"epoch": 0, "gamma_1": 0.5}, *result.log] for name, result in learned.items()}
figure, axis = plt.subplots(figsize=(8, 4.4), layout="constrained")
plots.learned_spreads(logs, axis, "Text, everything learned", floor=FLOOR)
plt.show()

# %% [markdown]
# Every objective decreases γ. The three with a floor follow nearly the same curve, although one of them has a guide.
# The next figure compares the learned γ with the grid.

# %%
figure, axis = plt.subplots(figsize=(8, 3.8), layout="constrained")
axis.plot(FIXED, [result.test.perplexity for result in grid.values()], "o-", color="black", label="fixed γ")
colors = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
for (name, result), color, marker in zip(learned.items(), colors, "sD^v", strict=True):
    axis.plot(best_gamma(result), result.test.perplexity, marker, color=color, label=name)
axis.set(xlabel="γ of the best model (standard deviation)", ylabel="test perplexity, noise off")
axis.set_title("Fixed and learned spreads on the text (lower is better)")
axis.grid(alpha=0.3)
axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
folder.cleanup()

# %% [markdown]
# ## Conclusions
#
# - **Equation (1) decreases γ.** In the linear-Gaussian model the data were drawn with γ = 0.5, but the optimum of
#   equation (1) is no noise. The floor determines the learned γ.
# - **A tighter bound can help if it is tight enough.** In this model the smoothing guide finds the maximum-likelihood
#   γ, and so does, nearly, the filtering bound, which has no guide to train. With importance samples or the mean-field
#   guide γ is too small, though by much less than with equation (1).
# - **On the text no objective helps.** If the weights are learned on the same data, less noise and weights that fit
#   these data increase the likelihood, however tight the bound is. The training objective cannot detect overfitting;
#   validation can. The grid uses validation: its γ of 0.5 has the best validation score of all networks without a
#   guide, and the best test score of all.
# - **The remedies help to some extent.** With a floor or early stopping, γ is small at the best epoch, and the model
#   is better on test data than the one without noise. The model with a guide is also better.
#
# A learned γ needs a single run, and a grid one run per point. All results are from single runs with one seed;
# differences of about one point of perplexity may be due to the seed. [Results](../docs/results.md) has longer runs
# on the chorales, and the bounds are explained in [Inference](../docs/inference.md) and in [another
# notebook](3-prior-as-guide.ipynb).
