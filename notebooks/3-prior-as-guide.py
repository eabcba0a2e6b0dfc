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
# # The prior as guide, and guides that condition on the data
#
# The likelihood p(x) of a noisy network is an integral over all noise and cannot be computed exactly. Any guide q
# over the hidden states gives a lower bound,
#
# $$\mathrm{ELBO} = \mathrm{E}_{q(\mathbf{z})}\left[\log\, p(\mathbf{x} \mid \mathbf{z})\right] -
# \mathrm{KL}\left[q(\mathbf{z}) \,\|\, p(\mathbf{z})\right] \;\le\; \log\, p(\mathbf{x}).$$
#
# The paper uses the prior itself as the guide. The KL vanishes, and the ELBO becomes its objective, equation (1): the
# expected log-likelihood of a run of the noisy network. A variational guide conditions on x, at the cost of a KL. This
# notebook compares the two, and shows which of the resulting numbers can be compared: first for a model with known log
# p(x), then on music.

# %%
import os
import warnings

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

import noisin_pyro as nz
from noisin_pyro import plots

# %matplotlib inline
QUICK = "NOISIN_QUICK" in os.environ  # a smaller run, for testing
SEQUENCES, GUIDE_STEPS, PARTICLES = (50, 20, 40) if QUICK else (400, 1000, 400)
PASSES, PASSES_WITH_GUIDE = (2, 2) if QUICK else (120, 45)
torch.set_num_threads(1)  # the tensors are small
pyro.settings.set(module_local_params=True)  # each model has its own parameters

# %% [markdown]
# ## A model with known log p(x)
#
# With the identity cell and Gaussian noise and emission, the network is a linear-Gaussian model:
# $z_t = 0.9\, z_{t-1} + 0.5\, \epsilon_t$, and $x_t$ is $z_t$ plus an error of variance 1. All variables are jointly
# Gaussian, so log p(x) and the posterior are known exactly.

# %%
STEPS, CARRIED, SPREAD = 20, 0.9, 0.5
rnn = nz.NoisyRNN(input_size=1, hidden_size=1, cell="identity", noise="gaussian", spread=SPREAD)
model = nz.SequenceModel(rnn, emission="gaussian", output_size=1).requires_grad_(False)
no = {name: torch.zeros(1) for name in ("bias_ih_l0", "bias_hh_l0")}
rnn.load_state_dict({"weight_hh_l0": torch.full((1, 1), CARRIED), "weight_ih_l0": torch.zeros(1, 1)} | no)
model.emission.linear.load_state_dict({"weight": torch.ones(1, 1), "bias": torch.zeros(1)})


def draw(count):
    """Inputs (zeros), hidden states and observations, (count, 20, 1) each."""
    inputs = torch.zeros(count, STEPS, 1)
    nodes = poutine.trace(model).get_trace(inputs).nodes
    return inputs, nodes["z_1"]["value"], nodes["x"]["value"]


lag = torch.arange(STEPS)[:, None] - torch.arange(STEPS)
powers = torch.where(lag >= 0, CARRIED ** lag.clamp(min=0), 0.0)  # effect of the noise of step s on z_t
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
# The model is fixed; only the guides are trained, on new draws from the model. They sample the noise ε, the latents
# of `nz.innovations(model)`; this view is applied automatically. `"mean-field"` draws each step independently,
# `"filtering"` conditions on the previous state and on x up to the current step, and `"smoothing"` on the previous
# state and all of x. A guide that samples nothing is equivalent to the prior: *a latent site that the guide does not
# sample is drawn from the model's own prior, and costs no KL.*


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
# The figure shows draws for one sequence, next to draws from the exact posterior. Dots are the true hidden states.

# %%
one = nz.data.Sequences(inputs[:1], x[:1])
draws = {}
# k̂ warns of the prior and of the mean-field guide, which do not cover the posterior, as the figure shows
warnings.filterwarnings("ignore", message="posterior: the Pareto")
for name in ("prior", "mean-field", "smoothing"):
    result = nz.posterior(model, one, guides[name], num_samples=400, seed=3, progress=False)
    draws[f"guide: {name}"] = result.posterior.z_1.sel(chain=0, sequence=0, unit_1=0)
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
# The prior does not depend on x, so its draws vary widely. The mean-field guide follows x, but draws each ε
# independently of the current state, so errors accumulate along the sequence, and its band is too wide. The draws of
# the smoothing guide resemble those of the posterior.
#
# ## Bounds and estimates compared with the exact value
#
# `nz.evaluate` with `"importance"` computes the logarithm of the mean weight of S samples of each sequence. This is a
# bound; with one sample it is the ELBO, and more samples tighten it. The particle filter needs no guide. Its estimate
# of p(x) is unbiased.

# %%
rows = []
for samples, method in ((1, "ELBO"), (200, "importance")):
    for name, guide in guides.items():
        pyro.set_rng_seed(2)
        result = nz.evaluate(model, data, "importance", num_samples=samples, guide=guide)
        label = f"{samples} sample{'s' * (samples > 1)}"
        rows.append(vars(result) | {"model": label, "method": method, "guide": name})
result = nz.evaluate(model, data, "particle-filter", num_samples=400)
rows.append(vars(result) | {"model": "400 particles", "guide": None})

print("nats per step above the truth:")
for row in rows:
    gap = row["nats_per_step"] - truth
    print(f"{row['model']:15}{row['method']:17}{row['guide'] or '':12}{row['kind']:10}{gap:+.4f}")
plots.comparison(rows, truth=truth)

# %% [markdown]
# The model and its log p(x) are the same, but the four ELBOs differ widely: they measure the distance of each guide
# from the posterior, not the quality of the model. Only the ELBO of the smoothing guide is close to the
# log-likelihood. With 200 samples the other three bounds are much tighter; that of the prior remains the loosest. The
# particle filter is close without any training. Its nats per step are slightly too high, since the logarithm of an
# unbiased estimate is too low on average.
#
# ## Diagnostics without the exact value
#
# Two diagnostics show whether importance weights are reliable: the tail of their distribution (Pareto k̂) and their
# effective sample size.

# %%
diagnostics = {}
for name, guide in guides.items():
    result = nz.posterior(model, data, guide, num_samples=200, seed=3, progress=False)
    diagnostics[name] = (result.sample_stats.pareto_k, result.sample_stats.effective_proposals)
    k, worth = (each.values for each in diagnostics[name])
    print(f"{name:11} k̂ above 0.7 in {(k > 0.7).mean():4.0%} of sequences; 200 samples are worth {worth.mean():5.1f}")
plots.diagnostics(diagnostics, num_proposals=200)

# %% [markdown]
# The effective sample size is nearly the number of samples for the smoothing guide, very small for the prior, and in
# between for the other two, like their gaps. In the previous figure a mark is hollow if at least one sequence has a
# k̂ above 0.7. The prior is thus a poor proposal for estimating log p(x). Whether it is a poor training objective is
# a different question.
#
# ## On music
#
# Now all parameters are learned, and log p(x) is unknown. The data are Bach's chorales: at each step, which of 88
# keys sound, given the previous steps. We train three networks of 100 units: a deterministic one; one with noise (γ =
# 0.25), trained by equation (1), with the prior as guide; and the same with a mean-field guide, whose KL is annealed
# over the first 20 epochs. An epoch with the guide takes longer, so there are fewer of them: each network is trained
# for about half a minute, which is short.

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
# `nz.compare` scores the networks by every method and reports the kind of each score. `"mean"` turns the noise off,
# and `"ensemble"` averages the predictions of 50 noisy runs step by step. Both are predictors: they can be compared
# with any other network's, but they are not log p(x) of the noisy network. `"importance"` uses samples from the prior
# and, if there is one, from the guide, here with one sample (the ELBO) and with 100. The gap is the difference to the
# particle filter's estimate for the same network.

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
# Some chorales are hard to predict for every network, so the standard errors over sequences are large. The paired
# difference of two networks has a smaller error:

# %%
pyro.set_rng_seed(0)
filtered = [nz.evaluate(m, corpus.test, "particle-filter", PARTICLES, batch_size=20) for m in (plain, noisy, guided)]
for name, one, other in (("equation (1) minus deterministic", 1, 0), ("guide minus equation (1)", 2, 1)):
    difference = filtered[one].difference(filtered[other])
    print(f"{name:33} {difference.nats_per_step:+.3f} ± {difference.standard_error:.3f} nats per chord")

# %% [markdown]
# ## Conclusions
#
# - **ELBOs of different models are not comparable.** By its ELBO the network trained by equation (1) is worse than
#   the deterministic one. By the particle filter it is not worse, and perhaps slightly better, by less than two
#   standard errors. The score of the deterministic network is exact, whereas the ELBO of the other is off by an
#   unknown gap.
# - **Using the same guide for all models does not help.** With samples from the prior for both, the network trained
#   with a guide appears worse than the one trained by equation (1). By the particle filter it is better, by many
#   standard errors.
# - **Using each model's own guide does not help either.** The ELBOs differ by more than the models do, since the gaps
#   differ. ELBOs compare guides of the same model.
# - **With equation (1) the noise is a regularizer; with a guide it is part of the model.** The network trained by
#   equation (1) predicts nearly as well with its noise off: the noise acts during training. The network trained with
#   a guide needs its noise: with the noise off it is no better than the others, but the ensemble of its noisy runs
#   is.
# - **A guide has costs.** Its 45 epochs took about as long as 120 without a guide, and the guide and its KL annealing
#   must be chosen. The only setting of equation (1) is γ.
#
# The hollow marks on the chorales show that 100 samples are too few, with either guide. All results are from single,
# short runs with one seed: the standard errors are over chorales and do not include the variation between seeds.
# [Results](../docs/results.md) has longer runs with more families and guides, [Evaluation](../docs/evaluation.md)
# describes all methods and errors, and [Inference](../docs/inference.md) all guides.
