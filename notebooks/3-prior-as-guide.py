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
# $$\mathrm{ELBO} = \mathrm{E}_{q(\mathbf{z})}\left[\log\, p(\mathbf{x} \mid \mathbf{z})\right] - \mathrm{KL}\left[q(\mathbf{z}) \,\|\, p(\mathbf{z})\right] \;\le\; \log\, p(\mathbf{x}).$$
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
SEQUENCES, GUIDE_STEPS = (50, 20) if QUICK else (400, 1000)
EPOCHS = {"deterministic": 2, "prior": 2, "mean-field": 2} if QUICK else {"deterministic": 120, "prior": 120, "mean-field": 45}
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
for parameter in [*rnn.parameters(), *model.emission.linear.parameters()]:
    parameter.zero_()
rnn.weight_hh_l0.fill_(CARRIED)
model.emission.linear.weight.fill_(1.0)


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
# The model stays as it is; only the guides are trained, on fresh draws from it. They act on the noise ε, which
# `nz.innovations(model)` has as its latents. `"mean-field"` draws each step by itself, `"filtering"` knows the
# state before and x until now, `"smoothing"` the state before and all of x. A guide that samples nothing is the
# prior: *what the guide does not sample is drawn from the model's own prior, and costs no KL.*

# %%
view = nz.innovations(model)


def prior(*args, **kwargs):
    """The guide that samples nothing."""


def trained(name):
    pyro.set_rng_seed(1)
    guide = nz.guides.get(name, model, hidden_size=16)
    bound = nz.PriorAsGuide_ELBO()(view, guide)
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
    found = nz.posterior(view, one, guides[name], num_samples=400, seed=0, progress=False)
    draws[f"guide: {name}"] = found.posterior.z_1.sel(chain=0, sequence=0, unit_1=0)
gain = torch.linalg.solve(covariance, prior_covariance).T
left = prior_covariance - gain @ prior_covariance
pyro.set_rng_seed(0)
draws["exact posterior"] = dist.MultivariateNormal(x[0, :, 0] @ gain.T, left).sample((400,))

figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex=True, sharey=True, layout="constrained")
for axis, (name, paths) in zip(axes.flat, draws.items(), strict=True):
    plots.trajectories(paths, truth=z[0, :, 0], title=name, legend=False, ax=axis)
    axis.label_outer()
figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
plt.show()

# %% [markdown]
# The prior does not know x, so it draws whatever the network could do. The mean-field guide finds the place, but its
# paths jump about it: each step is drawn without a look at the one before. The smoothing guide's draws look like the
# posterior's.
#
# ## The numbers beside the truth
#
# `nz.evaluate` with `"importance"` averages the weights of S samples of each sequence. With S = 1 that is the ELBO. More
# samples tighten any guide's bound; the particle filter, which needs no guide, estimates log p(x) itself.

# %%
rows = []
for samples in (1, 100):
    for name, guide in guides.items():
        pyro.set_rng_seed(2)
        found = nz.evaluate(view, data, "importance", num_samples=samples, guide=guide)
        rows.append(vars(found) | {"model": "ELBO (S = 1)" if samples == 1 else f"S = {samples}", "guide": name})
found = nz.evaluate(model, data, "particle-filter", num_samples=400)
rows.append(vars(found) | {"model": "400 particles", "guide": None})

print("nats per step                         above the truth")
for row in rows:
    gap = row["nats_per_step"] - truth
    print(f"{row['model']:14}{row['guide'] or '':12}{row['kind']:10}{gap:+9.4f}")
plots.comparison(rows, truth=truth)

# %% [markdown]
# One model, one log p(x), and ELBOs that differ by as much as good models differ from bad ones: what differs is how far
# the guide is from the posterior. Only the smoothing guide's ELBO can be read as if it were the likelihood. A hundred
# samples repair much, for the better guides nearly everything. The particle filter is close without any training. Its
# number is above the truth, a little: it estimates p(x) without bias, and the logarithm of that is low on average.
#
# ## Can one tell without the truth?
#
# Importance weights say themselves whether they can be trusted, by the tail of their distribution (Pareto k̂) and by how
# many samples they are worth.

# %%
told = {}
for name, guide in guides.items():
    found = nz.posterior(view, data, guide, num_samples=200, seed=0, progress=False)
    told[name] = (found.sample_stats.pareto_k, found.sample_stats.effective_proposals)
    k, worth = (each.values for each in told[name])
    print(f"{name:12} k̂ above 0.7 in {(k > 0.7).mean():4.0%} of the sequences; 200 samples are worth {worth.mean():5.1f}")
plots.diagnostics(told, num_proposals=200)

# %% [markdown]
# They are in the order of the gaps above. The prior as guide is a good objective for many purposes, but a poor way to
# estimate log p(x): nearly all of its samples are thrown away.
#
# ## On music
#
# Now everything is learned, and nobody knows log p(x). Bach's chorales: at each step the keys that sound, 88 bits, given
# those before. Three networks of 100 units: deterministic; noisy (γ = 0.25) and trained by equation (1), the prior as
# guide; and noisy and trained together with a mean-field guide, whose KL comes in over the first 20 passes. The passes
# are chosen so that each trains for about half a minute, which is brief.

# %%
corpus = nz.data.load("jsb")
print(f"{len(corpus.train)} chorales to train on, {len(corpus.test)} to test on, {corpus.test.num_steps} chords")


def train(name, spread, guide_name=None):
    pyro.set_rng_seed(0)
    model = nz.SequenceModel(nz.NoisyRNN(88, 100, noise="gaussian", spread=spread), "bernoulli", 88)
    view, guide = model, None
    if guide_name is not None:
        view, guide = nz.innovations(model), nz.guides.get(guide_name, model, hidden_size=32)
    bound = nz.PriorAsGuide_ELBO(max_plate_nesting=1)(view, guide)  # without a guide: equation (1)
    optimizer = torch.optim.Adam(bound.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS[name])
    order = torch.Generator().manual_seed(0)
    for epoch in range(EPOCHS[name]):
        bound.elbo.kl_weight = min(1.0, (epoch + 1) / 20)
        for batch in corpus.train.batches(20, order):
            loss = bound(batch.inputs, batch.targets, lengths=batch.lengths) / batch.num_steps
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(bound.parameters(), 5.0)
            optimizer.step()
        schedule.step()
    return model, guide


models = {
    "deterministic": train("deterministic", 0.0),
    "prior": train("prior", 0.25),
    "mean-field": train("mean-field", 0.25, "mean-field"),
}

# %% [markdown]
# `nz.compare` scores them by every method, each number with what it is; `"gap"` is how far a number is above the same
# model's particle filter. The ELBO is one sample of `"importance"`.

# %%
scored = {
    f"trained by {name}" if model.rnn.noisy_layers else name: model if guide is None else (nz.innovations(model), guide)
    for name, (model, guide) in models.items()
}
samples = {"ensemble": 20, "importance": 20, "particle-filter": 40} if QUICK else {"particle-filter": 400}
table = nz.compare(scored, corpus.test, num_samples=samples, batch_size=20, seed=0)
elbos = nz.compare(scored, corpus.test, ["importance"], num_samples=1, batch_size=20, seed=0)

rows = []
for name in scored:
    rows += [row | {"method": "ELBO"} for row in elbos.rows if row["model"] == name and row["kind"] == "bound"]
    rows += [row for row in table.rows if row["model"] == name]
for row in rows:
    gap = "" if row["gap"] is None else f"  gap {row['gap']:+.3f}"
    label = row["method"] if row["guide"] is None else f"{row['method']}, {row['guide']}"
    print(f"{row['model']:22}{label:24}{row['kind']:10}{row['nats_per_step']:.3f}{gap}")
plots.comparison(rows)
