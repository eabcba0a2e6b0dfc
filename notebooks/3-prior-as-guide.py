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
# # The prior as guide, and guides that look at the data
#
# A noisy network defines log p(x), an average over all the noise it could have drawn, and nobody can compute it. For
# any guide q over the hidden states there is a bound below it,
#
# $$\mathrm{ELBO} = \mathrm{E}_{q(\mathbf{z})}\left[\log\, p(\mathbf{x} \mid \mathbf{z})\right] -
# \mathrm{KL}\left[q(\mathbf{z}) \,\|\, p(\mathbf{z})\right] \;\le\; \log\, p(\mathbf{x}).$$
#
# The paper takes the prior itself as the guide. The KL vanishes, and what is left is its objective, equation (1): run
# the noisy network, and score. A full variational guide looks at x before it draws z, and pays for that in KL. Which is
# better, for what, and which of the numbers that come out can be compared? First in a model whose log p(x) is known,
# then on music.

# %%
import os

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

import noisin_pyro as nz
from noisin_pyro import plots

# %matplotlib inline
QUICK = "NOISIN_QUICK" in os.environ  # a smaller run, to see that everything works
SEQUENCES, GUIDE_STEPS, PARTICLES = (50, 20, 40) if QUICK else (400, 1000, 400)
PASSES, PASSES_WITH_GUIDE = (2, 2) if QUICK else (120, 45)
torch.set_num_threads(1)  # the tensors are small
pyro.settings.set(module_local_params=True)  # each model has its own parameters

# %% [markdown]
# ## Where the truth is known
#
# With the identity for a cell, and Gaussian noise and emission, the network is a linear-Gaussian model:
# $z_t = 0.9\, z_{t-1} + 0.5\, \epsilon_t$, and $x_t$ is $z_t$ with an error of variance 1. All its numbers together are
# one Gaussian, so log p(x) is exact, and so is the posterior.

# %%
STEPS, CARRIED, SPREAD = 20, 0.9, 0.5
rnn = nz.NoisyRNN(input_size=1, hidden_size=1, cell="identity", noise="gaussian", spread=SPREAD)
model = nz.SequenceModel(rnn, emission="gaussian", output_size=1).requires_grad_(False)
no = {name: torch.zeros(1) for name in ("bias_ih_l0", "bias_hh_l0")}
rnn.load_state_dict({"weight_hh_l0": torch.full((1, 1), CARRIED), "weight_ih_l0": torch.zeros(1, 1)} | no)
model.emission.linear.load_state_dict({"weight": torch.ones(1, 1), "bias": torch.zeros(1)})


def draw(count):
    """Inputs (there is nothing to see: zeros), hidden states and observations, (count, 20, 1) each."""
    inputs = torch.zeros(count, STEPS, 1)
    nodes = poutine.trace(model).get_trace(inputs).nodes
    return inputs, nodes["z_1"]["value"], nodes["x"]["value"]


lag = torch.arange(STEPS)[:, None] - torch.arange(STEPS)
powers = torch.where(lag >= 0, CARRIED ** lag.clamp(min=0), 0.0)  # what is left of the noise of step s in step t
prior_covariance = SPREAD**2 * powers @ powers.T
covariance = prior_covariance + torch.eye(STEPS)  # of x

pyro.set_rng_seed(0)
inputs, z, x = draw(SEQUENCES)
data = nz.data.Sequences(inputs, x)
log_p = dist.MultivariateNormal(torch.zeros(STEPS), covariance).log_prob(x.squeeze(-1))
truth = -log_p.mean().item() / STEPS
print(f"-log p(x), exact: {truth:.4f} nats per step, on {len(data)} sequences of {STEPS} steps")

# %% [markdown]
# ## Three guides for one model
#
# The model stays as it is; only the guides are trained, on fresh draws from it. They act on the noise ε, the
# latent of `nz.innovations(model)`, and bring that view along. `"mean-field"` draws each step by itself, `"filtering"`
# knows the state before and x until now, `"smoothing"` the state before and all of x. A guide that samples nothing is
# the prior: *what the guide does not sample is drawn from the model's own prior, and costs no KL.*


# %%
def prior(*args, **kwargs):
    """The guide that samples nothing."""


def trained(name):
    pyro.set_rng_seed(1)
    guide = nz.guides.get(name, model, hidden_size=16)
    bound = nz.PriorAsGuide_ELBO()(model, guide)
    optimizer = torch.optim.Adam(guide.parameters(), lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, GUIDE_STEPS)
    for _ in range(GUIDE_STEPS):
        inputs, _, x = draw(50)
        loss = bound(inputs, x) / x.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return guide


guides = {"prior": prior} | {name: trained(name) for name in ("mean-field", "filtering", "smoothing")}

# %% [markdown]
# What they draw for one sequence, beside draws from the exact posterior. Dots are the hidden states that this x was
# made from.

# %%
one = nz.data.Sequences(inputs[:1], x[:1])
draws = {}
for name in ("prior", "mean-field", "smoothing"):
    found = nz.posterior(model, one, guides[name], num_samples=400, seed=3, progress=False)
    draws[f"guide: {name}"] = found.posterior.z_1.sel(chain=0, sequence=0, unit_1=0)
gain = torch.linalg.solve(covariance, prior_covariance).T
left = prior_covariance - gain @ prior_covariance
pyro.set_rng_seed(3)
draws["exact posterior"] = dist.MultivariateNormal(x[0, :, 0] @ gain.T, left).sample((400,))

figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex=True, sharey=True, layout="constrained")
for axis, (name, paths) in zip(axes.flat, draws.items(), strict=True):
    plots.trajectories(paths, truth=z[0, :, 0], title=name, legend=False, ax=axis)
    axis.label_outer()
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
plt.show()

# %% [markdown]
# The prior does not know x, so it draws whatever the network could do. The mean-field guide follows x, but draws each ε
# without a look at the state that it has come to, so errors add up along the path, and its band is too wide. The
# smoothing guide's draws are like the posterior's.
#
# ## The numbers beside the truth
#
# `nz.evaluate` with `"importance"` takes the logarithm of the mean weight of S samples of each sequence: a bound, which
# with one sample is the ELBO, and which more samples tighten. The particle filter needs no guide. It estimates p(x)
# without bias, so that it is neither a bound nor off by what a guide lacks.

# %%
rows = []
for samples, method in ((1, "ELBO"), (200, "importance")):
    for name, guide in guides.items():
        pyro.set_rng_seed(2)
        found = nz.evaluate(model, data, "importance", num_samples=samples, guide=guide)
        label = f"{samples} sample{'s' * (samples > 1)}"
        rows.append(vars(found) | {"model": label, "method": method, "guide": name})
found = nz.evaluate(model, data, "particle-filter", num_samples=400)
rows.append(vars(found) | {"model": "400 particles", "guide": None})

print("nats per step above the truth:")
for row in rows:
    gap = row["nats_per_step"] - truth
    print(f"{row['model']:15}{row['method']:17}{row['guide'] or '':12}{row['kind']:10}{gap:+.4f}")
plots.comparison(rows, truth=truth)

# %% [markdown]
# One model, one log p(x), and four ELBOs, far apart: they tell how far each guide is from the posterior, and nothing
# about the model. Only the smoothing guide's can be read as if it were the likelihood. Two hundred samples repair much
# of the other three, and leave the prior's the furthest off. The particle filter is close, without any training; a
# little above the truth, since the logarithm of an unbiased estimate is too low on average.
#
# ## Can one tell without the truth?
#
# Importance weights say themselves whether they can be trusted, by the tail of their distribution (Pareto k̂) and by
# how many samples they are worth.

# %%
told = {}
for name, guide in guides.items():
    found = nz.posterior(model, data, guide, num_samples=200, seed=3, progress=False)
    told[name] = (found.sample_stats.pareto_k, found.sample_stats.effective_proposals)
    k, worth = (each.values for each in told[name])
    print(f"{name:11} k̂ above 0.7 in {(k > 0.7).mean():4.0%} of sequences; 200 samples are worth {worth.mean():5.1f}")
plots.diagnostics(told, num_proposals=200)

# %% [markdown]
# Nearly all samples of the smoothing guide count, hardly any of the prior's, and the other two are in between, as their
# gaps were. One sequence with a k̂ above 0.7 is enough for a hollow mark in the picture before. So the prior is a poor
# way to estimate log p(x). Whether it is a poor objective is another question.
#
# ## On music
#
# Now everything is learned, and nobody knows log p(x). The data are Bach's chorales: at each step the keys that sound,
# of 88, given those before. We train three networks of 100 units: one deterministic; one with noise (γ = 0.25), trained
# by equation (1), with the prior as guide; and the same together with a mean-field guide, whose KL comes in over the
# first 20 passes. A pass with the guide takes longer, so there are fewer: each has about half a minute, which is brief.

# %%
corpus = nz.data.load("jsb")
print(f"{len(corpus.train)} chorales to train on, {len(corpus.test)} to test on, with {corpus.test.num_steps} chords")


def train(spread, passes, guide_name=None):
    pyro.set_rng_seed(0)
    model = nz.SequenceModel(nz.NoisyRNN(88, 100, noise="gaussian", spread=spread), "bernoulli", 88)
    guide = None if guide_name is None else nz.guides.get(guide_name, model, hidden_size=32)
    bound = nz.PriorAsGuide_ELBO(max_plate_nesting=1)(model, guide)  # without a guide: equation (1)
    optimizer = torch.optim.Adam(bound.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, passes)
    order = torch.Generator().manual_seed(0)
    for done in range(passes):
        bound.elbo.kl_weight = min(1.0, (done + 1) / 20)
        for batch in corpus.train.batches(20, order):
            loss = bound(batch.inputs, batch.targets, lengths=batch.lengths) / batch.num_steps
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(bound.parameters(), 5.0)
            optimizer.step()
        schedule.step()
    return model, guide


plain, _ = train(0.0, PASSES)
noisy, _ = train(0.25, PASSES)
guided, guide = train(0.25, PASSES_WITH_GUIDE, "mean-field")

# %% [markdown]
# `nz.compare` scores them by every method, and says of each number what kind it is. `"mean"` has the noise off and
# `"ensemble"` averages the predictions of 50 noisy runs step by step: predictors, which can be set against those of any
# other network, but which are no log p(x) of the noisy one. `"importance"` draws from the prior and, where there is
# one, then from the guide: once with one sample, the ELBO, and once with 100. The gap is how far a number is above the
# particle filter's, of the same network.

# %%
networks = {
    "deterministic": plain,
    "trained by equation (1)": noisy,
    "trained with a guide": (guided, guide),
}
samples = {"ensemble": 50, "importance": 100, "particle-filter": PARTICLES}
elbos = nz.compare(networks, corpus.test, ["importance"], num_samples=1, batch_size=20, seed=0)
table = nz.compare(networks, corpus.test, num_samples=samples, batch_size=20, seed=0)

rows = []
for name in networks:
    rows += [row | {"method": "ELBO"} for row in elbos.rows if row["model"] == name and row["kind"] == "bound"]
    rows += [row for row in table.rows if row["model"] == name]
for row in rows:
    method = row["method"] if row["guide"] is None else f"{row['method']}, {row['guide']}"
    gap = "" if row["gap"] is None else f"   gap {row['gap']:+.3f}"
    print(f"{row['model']:25}{method:24}{row['kind']:10}{row['nats_per_step']:.3f}{gap}")
plots.comparison(rows)

# %% [markdown]
# Some chorales are hard for every network, which makes the bars over sequences long. The difference of two networks,
# chorale by chorale, is better known:

# %%
pyro.set_rng_seed(0)
filtered = [nz.evaluate(m, corpus.test, "particle-filter", PARTICLES, batch_size=20) for m in (plain, noisy, guided)]
for name, one, other in (("equation (1) minus deterministic", 1, 0), ("guide minus equation (1)", 2, 1)):
    difference = filtered[one].difference(filtered[other])
    print(f"{name:33} {difference.nats_per_step:+.3f} ± {difference.standard_error:.3f} nats per chord")

# %% [markdown]
# ## What the numbers say, and what they do not
#
# - **ELBOs of different models mislead.** By its ELBO the network trained by equation (1) is worse than the
#   deterministic one; by the particle filter it is no worse, and perhaps a little better, by less than two standard
#   errors. The deterministic network's number is exact, and the other's is off by its gap, which an ELBO does not tell.
# - **One guide for all does not make it fair.** With samples of the prior for both, the network trained with a guide
#   looks worse than that trained by equation (1). By the particle filter it is better, by many standard errors.
# - **Even with each model's own guide** the ELBOs differ by more than the models do, since the gaps differ. ELBOs
#   compare guides of one model.
# - **Equation (1) makes noise a regulariser, a guide makes it part of the model.** The network trained by equation (1)
#   predicts nearly as well with its noise off: what the noise does for it, it did in training. The one trained with a
#   guide needs its noise: with the noise off it is no better than the others, and the ensemble of its noisy runs is.
# - **A guide costs.** Its 45 passes took about as long as 120 without, and there is a guide to choose, and its KL to
#   bring in. Equation (1) has nothing to set but γ.
#
# All hollow marks on the chorales say that a hundred samples do not suffice there, of either guide. These are single
# runs from one seed, and short ones: the errors above are over chorales, and say nothing about other seeds.
# [Results](../docs/results.md) has longer runs with more families and guides, [Evaluation](../docs/evaluation.md) all
# methods and errors, and [Inference](../docs/inference.md) all guides.
