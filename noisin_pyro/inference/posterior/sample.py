"""The posterior over a model's hidden states, γ and weights, in ArviZ's format."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from noisin_pyro._diagnostics import MAX_PARETO_K
from noisin_pyro._lookup import integer
from noisin_pyro.data import Batch, Sequences, Stream
from noisin_pyro.inference.arguments import check_data, check_programs
from noisin_pyro.inference.arviz import Variables, pareto_k, to_arviz
from noisin_pyro.inference.blocks import LargestTensor, block_size
from noisin_pyro.inference.generation import seeded
from noisin_pyro.inference.guides import Guide
from noisin_pyro.inference.guides.view import program_of, view_for
from noisin_pyro.inference.importance_weights import effective_sample_size
from noisin_pyro.inference.observed import refuse_given_targets
from noisin_pyro.inference.posterior.groups import coords, groups_of, marginal, observed
from noisin_pyro.inference.posterior.options import Options, check_memory, checked_options
from noisin_pyro.inference.posterior.samplers import Draws, by_importance, by_nuts, is_shared, run
from noisin_pyro.inference.posterior.smoother import by_smoothing, stored_bytes
from noisin_pyro.inference.series_of_model import require_format_of
from noisin_pyro.inference.traces import latent_sites
from noisin_pyro.models import SequenceModel, innovations, underlying

PARTICLES, SMOOTHER_PARTICLES = 200, 1000
Program = Callable[..., Any]


@torch.no_grad()
def posterior(
    model: Callable[..., Any],
    data: Sequences | Stream,
    guide: Callable[..., Any] | None = None,
    num_samples: int = 1000,
    *,
    method: str | None = None,
    num_proposals: int | None = None,
    num_chains: int | None = None,
    warmup_steps: int | None = None,
    thin: int | None = None,
    num_particles: int | None = None,
    max_memory: int = 2**30,
    seed: int | None = None,
    progress: bool = True,
) -> Any:
    """Draw from p(z, γ, weights | x), and return the draws with the groups that ArviZ's summaries and plots use.

    - ``method="prior"``: whole sequences from the prior, resampled in proportion to p(x | z). Only for small T·H.
    - ``method="guide"``: draws from the guide, q(z | x), which approximates the posterior; with ``num_proposals``,
      resampled in proportion to p(x, z) / q(z | x). Sites that the guide does not sample are drawn from the prior.
    - ``method="nuts"``: chains of the No-U-Turn sampler on ``innovations(model)``. For small models.
    - ``method="smoother"``: forward filtering, backward sampling (``smoother.py``), for long sequences. Each chain is a
      particle filter of its own, from which its draws are taken. For noise that feeds back in every layer, with a
      density, and cells other than the LSTM; γ and weights must be fixed.

    With the first two, ``sample_stats`` contains the Pareto k̂ and the effective sample size of each sequence's weights.
    If γ or weights are sampled, the sequences share them, and there is one k̂ for all sequences together. A warning is
    issued if k̂ is above 0.7: resampled draws are then unreliable, and draws from the guide as they are far from the
    posterior. Resampled draws may repeat.

    Groups: ``posterior`` and ``prior`` contain ``z_1`` ... (chain, draw, sequence, time, unit_1), ``gamma_1`` ... if γ
    has a prior, and weights with priors, under their sites' names. ``posterior_predictive`` and ``observed_data``
    contain ``x`` (..., sequence, time[, feature]). ``log_likelihood`` contains ``x``, log p(x_t | z_t) of each step,
    and, if γ or weights are sampled, ``x_marginal``, log p(x | γ, weights) of each whole sequence, by a particle filter
    at each draw. The coordinate ``time`` starts at 1, as in the names of sites; the others start at 0. Steps beyond a
    sequence's length are NaN, and so are missing or masked targets and their log-likelihoods, so integers with padding
    are stored as floats. ``posterior_predictive`` includes missing targets.

    Use ``az.loo`` and ``az.compare`` with ``var_name="x_marginal"``. They reweight the draws to leave out one
    observation, which works for latents that many observations share. It does not work for single steps: a state z_t
    depends mostly on x_t, so the weights would be as uneven as those of the prior. If neither γ nor weights are
    sampled, sequences share no latents, and leave-one-out does not apply. Compare such models on held-out sequences by
    ``evaluate(model, data, "particle-filter").difference(evaluate(other, data, "particle-filter"))``.

    Args:
        model: a :class:`SequenceModel`, or any program with the same arguments that opens a plate of dimension -1 over
            the sequences and returns ``emission`` and ``state``. With a custom guide, the view whose sites the guide
            samples.
        data: sequences, or a stream with a single window, whose columns are the sequences. Several windows are not
            supported, since the draws of a window would not depend on later windows.
        guide: a guide from :func:`noisin_pyro.inference.guides.get`, or a Pyro guide over some of the model's sites,
            called with the model's arguments.
        num_samples: number of draws; for ``"nuts"`` and ``"smoother"``, number of draws per chain (before thinning).
        method: one of the above (default: ``"guide"`` if a guide is given, else ``"prior"``).
        num_proposals: number of draws to resample from (default for ``"prior"``: ``10 * num_samples``).
        num_chains: for ``"nuts"`` and ``"smoother"``: number of chains, run one after the other (default: 4).
        warmup_steps: for ``"nuts"``: adaptation steps of each chain, discarded (default: ``num_samples``).
        thin: for ``"nuts"``: keep every ``thin``-th draw (default: 1).
        num_particles: number of particles for ``x_marginal`` (default: 200); 0 omits ``x_marginal``. For
            ``"smoother"``: number of particles of each filter (default: 1000).
        max_memory: maximum memory of the result and of intermediate draws, in bytes.
        seed: seed of this call, which then leaves the state of torch's generators unchanged. By default torch's
            generators are used.
        progress: whether to report the memory use (before the computation) and the progress of NUTS on standard error.

    Returns:
        an ``arviz.InferenceData`` (ArviZ 0.23) or an ``xarray.DataTree`` (ArviZ 1). Its attributes record the method,
        the seed and the versions.

    Raises:
        ValueError: a model without latents, options that do not apply, a stream of several windows, or memory use above
            ``max_memory``.
    """
    options = checked_options(method, guide, num_samples, num_proposals, num_chains, warmup_steps, thin)
    _check(model, data, guide)
    model = view_for(guide, model)
    data = _sequences(data)
    (batch,) = data.batches()
    with seeded(seed, batch.inputs.device):
        smoothing = options.method == "smoother"
        shared, draws_per_run = _shared_and_block_size(model, batch, num_particles, smoothing)
        marginals = bool(shared) and num_particles != 0
        if marginals and isinstance(program := underlying(model)[0], SequenceModel):
            program.dropout.refuse(
                "x_marginal needs a particle filter, which does not support dropout", "num_particles=0"
            )
        model = innovations(model) if options.method == "nuts" else model
        particles = (num_particles or SMOOTHER_PARTICLES) if smoothing else 0
        stored = stored_bytes(underlying(model)[0], batch, particles) if smoothing else 0
        check_memory(*_sizes(model, batch, options, marginals), options, max_memory, progress, particles, stored)
        if options.method == "nuts":
            draws = by_nuts(model, batch, num_samples, options.num_chains, options.warmup_steps, options.thin, progress)
        elif smoothing:
            draws = by_smoothing(model, batch, num_samples, options.num_chains, particles)
        else:
            _warn_of_prior_draws(model, guide, batch, options, shared)
            draws = by_importance(model, guide, batch, num_samples, options.num_proposals, draws_per_run)
        groups = groups_of(model, batch, draws.latents, options.num_draws, draws_per_run)
        groups["prior"] = groups_of(model, batch, {}, options.num_draws, draws_per_run)["posterior"]
        if marginals:
            network = {name: draws.latents[name] for name in shared}
            groups["log_likelihood"] |= marginal(model, data, network, num_particles or PARTICLES)
    groups = {group: _by_chain(variables, options.num_chains) for group, variables in groups.items()}
    groups["sample_stats"] = _stats(draws, options, bool(shared))
    groups["observed_data"] = observed(batch)
    index = np.arange(options.num_draws // options.num_chains) * options.thin
    return to_arviz(groups, {**coords(batch), "draw": index}, _attributes(model, options, seed))


def _sequences(data: Sequences | Stream) -> Sequences:
    """The data as sequences; the columns of a stream become sequences."""
    if isinstance(data, Sequences):
        return data
    batch, *others = data.batches()
    if others:
        raise ValueError(
            f"data must be a stream with one window, got {1 + len(others)} windows, whose draws would not depend on "
            "later windows; use a Stream whose window contains a whole column, or Sequences"
        )
    return Sequences(batch.inputs, batch.targets, batch.lengths)


def _check(model: Program, data: Sequences | Stream, guide: Program | None) -> None:
    check_data(data)
    check_programs(data, model, guide)
    refuse_given_targets(model)
    require_format_of(program_of(model), data)


def _warn_of_prior_draws(
    model: Program, guide: Program | None, batch: Batch, options: Options, shared: list[str]
) -> None:
    """Warn if what a guide gives as draws of γ or weights are those of their priors."""
    if guide is None or options.num_proposals is not None or not shared:
        return
    with seeded(0, batch.inputs.device):  # the draws stay those of the caller's seed
        _, guide_trace = run(model, batch, 1, guide)
    by_name = type(program_of(guide)) is Guide  # which draws γ and weights from their priors
    if names := [name for name in shared if by_name or name not in guide_trace]:
        warnings.warn(
            f"posterior: the guide does not learn {', '.join(names)}, whose draws are those of the prior however long "
            "it is trained; resample by num_proposals, use method='nuts', or a Pyro guide that samples all latents",
            stacklevel=4,
        )


def _shared_and_block_size(
    model: Callable[..., Any], batch: Batch, num_particles: int | None, smoothing: bool
) -> tuple[list[str], int]:
    """The names of latents that sequences share, and the number of draws in one run of the model."""
    with LargestTensor() as largest:
        trace, _ = run(model, batch, 1)
    latents = latent_sites(trace)
    if not latents:
        raise ValueError("model has no latent sites, hence no posterior; give it a spread above 0")
    shared = [site["name"] for site in latents if is_shared(site)]
    num_particles = None if num_particles is None else integer("num_particles", num_particles, int(smoothing))
    if num_particles and not shared and not smoothing:
        raise ValueError(
            f"num_particles={num_particles} has no effect if neither γ nor weights are sampled; drop it, and compute "
            "log p(x) by evaluate(model, data, 'particle-filter')"
        )
    return shared, block_size(largest.numel)


def _sizes(model: Callable[..., Any], batch: Batch, options: Options, marginals: bool) -> tuple[int, int]:
    """Memory of the result and of intermediate draws, in bytes."""
    trace, _ = run(model, batch, 1)
    latents = sum(site["value"].nbytes for site in latent_sites(trace))
    groups = groups_of(model, batch, {}, 1, 1)
    nbytes = {group: sum(values.nbytes for _, values in variables.values()) for group, variables in groups.items()}
    nbytes["prior"], nbytes["marginals"] = nbytes["posterior"], 8 * len(batch.targets) * marginals
    sampled = options.num_draws + (options.num_proposals or options.num_samples)
    return sum(nbytes.values()) * options.num_draws, sampled * latents


def _by_chain(variables: Variables, chains: int) -> Variables:
    return {
        name: (("chain", "draw", *dims), values.reshape(chains, -1, *values.shape[1:]))
        for name, (dims, values) in variables.items()
    }


def _stats(draws: Draws, options: Options, shared: bool) -> Variables:
    """The group ``sample_stats``. Issues a warning if the draws are unreliable."""
    if draws.diverging is not None and draws.energy is not None:
        stats = {"diverging": ((), draws.diverging.numpy()), "energy": ((), draws.energy.numpy())}
        return _by_chain(stats, options.num_chains)
    if draws.effective_particles is not None:
        return {"effective_particles": (("chain", "sequence"), draws.effective_particles.numpy())}
    assert draws.log_weights is not None
    k, effective = pareto_k(draws.log_weights.T.numpy()), effective_sample_size(draws.log_weights).numpy()
    unreliable = int((k > MAX_PARETO_K).sum())
    if unreliable:
        which = "all sequences, which share γ or weights" if shared else f"{unreliable} of {len(k)} sequences"
        if options.num_proposals is None:
            message = (
                "the draws are those of the guide, which does not cover the posterior (or, if k̂ is infinite, there "
                "are too few to tell); train the guide for longer, use a richer one or method='nuts', or resample by "
                "num_proposals"
            )
        else:
            message = (
                f"{options.num_proposals} proposals from the {options.method} do not cover the posterior, so the "
                "resampled draws are unreliable; use a (better) guide, method='nuts', or a larger num_proposals"
            )
        warnings.warn(
            f"posterior: the Pareto k̂ is above {MAX_PARETO_K} (up to {k.max():.2f}) for {which}: {message}",
            stacklevel=4,  # attributes the warning to the line that calls posterior
        )
    stats = {"pareto_k": k, "effective_proposals": effective}
    return {name: ((), values[0]) if shared else (("sequence",), values) for name, values in stats.items()}


def _attributes(model: Callable[..., Any], options: Options, seed: int | None) -> dict[str, Any]:
    """The method, its options, the model and the versions, as strings and numbers."""
    resampled = "" if options.num_proposals is None else ", resampled by importance"
    methods = {
        "prior": f"prior{resampled}", "guide": f"guide{resampled or ', as drawn'}", "nuts": "NUTS on innovations",
        "smoother": "forward filtering, backward sampling",
    }  # fmt: skip
    attributes: dict[str, Any] = {
        "inference_library": "noisin_pyro",
        **{f"{name}_version": version(name) for name in ("noisin_pyro", "pyro-ppl", "torch")},
        "method": methods[options.method],
        "seed": "not given" if seed is None else seed,
    }
    own = {name: getattr(options, name) for name in options.of_its_method()}
    attributes |= {name: value for name, value in own.items() if value is not None}
    program, _ = underlying(model)
    if isinstance(program, SequenceModel):
        rnn = program.rnn
        spreads = {f"gamma_{layer}": getattr(rnn, f"spread_{layer}") for layer in rnn.noisy_layers}
        like = next(rnn.parameters()).detach()
        attributes |= {"noise": f"{rnn.noise.name}:{rnn.noise.form}", "cell": rnn.cell.name}
        attributes |= {name: str(s.prior) if s.prior is not None else float(s(like)) for name, s in spreads.items()}
    return attributes
