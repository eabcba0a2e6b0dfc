"""A model's posterior over its hidden states, γ and weights, for ArviZ to look at."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from noisin_pyro.data import Batch, Sequences, Stream
from noisin_pyro.inference.arviz_adapter import Variables, pareto_k, to_arviz
from noisin_pyro.inference.draws import Draws, by_importance, by_nuts, is_shared, run
from noisin_pyro.inference.estimates import effective_samples
from noisin_pyro.inference.generation import seeded
from noisin_pyro.inference.importance import LARGEST, RELIABLE, Largest
from noisin_pyro.inference.posterior_options import Options, asked, state_size
from noisin_pyro.inference.seen import coordinates, marginal, observed, see
from noisin_pyro.inference.sites import sampled_sites
from noisin_pyro.models import SequenceModel, innovations, underlying

PARTICLES = 200


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
    """Draws from p(z, γ, weights | x), with what ArviZ's summaries and pictures look at.

    - ``method="prior"``: whole sequences from the prior, resampled in proportion to p(x | z). For small T·H alone.
    - ``method="guide"``: from the guide as they are, q(z | x); with ``num_proposals``, resampled in proportion to
      p(x, z) / q(z | x). What the guide does not sample is drawn from the prior.
    - ``method="nuts"``: chains of the No-U-Turn sampler on ``innovations(model)``. For small models.

    Of the first two ``sample_stats`` has the Pareto k̂ of each sequence's weights (of all together where γ or weights
    are sampled, which all share), and how many proposals they are worth. Where weights that were used for resampling
    have a k̂ above 0.7, a warning says so. Resampled draws may repeat.

    Groups: ``posterior`` and ``prior``: ``z_1`` ... (chain, draw, sequence, time, unit_1), ``gamma_1`` ... where γ has
    a prior, and weights that have one, by their sites' names. ``posterior_predictive``, ``observed_data``: ``x`` (...,
    sequence, time[, feature]). ``log_likelihood``: ``x``, log p(x_t | z_t) of each step; where γ or weights are sampled
    also ``x_marginal``, log p(x | γ, weights) of each whole sequence, by a particle filter at each draw. Time counts
    from 1, as sites do, all else from 0. Steps beyond a sequence's length are NaN, whole numbers floats there.

    ``az.loo`` and ``az.compare`` are for ``var_name="x_marginal"``. They re-weight draws as if they had not seen one
    observation. That works for what many observations share; but z_t has hardly any beside x_t, and without it would
    be another, so the weights of single steps are as bad as those of the prior. Where neither γ nor weights are
    sampled, nothing is shared and there is nothing to leave out. Compare models, of several families say, on sequences
    that they were not trained on: ``evaluate(model, data, "particle-filter").minus(evaluate(other, ...))``.

    Args:
        model: a :class:`SequenceModel`, or any program with its arguments that opens a plate of dimension -1 over the
            sequences and returns ``emission`` and ``state``; with a guide, the view on whose sites that acts.
        data: sequences; or a stream of one window, each column a sequence. In one of several windows the states go on
            from window to window, and no window's draws would know what follows it.
        guide: a Pyro guide over some of the model's sites, called with the model's arguments.
        num_samples: draws; of ``"nuts"``, in each chain before thinning.
        method: by default ``"guide"`` where there is one, else ``"prior"``.
        num_proposals: how many are drawn to be resampled; of ``"prior"``, 10 times ``num_samples`` by default.
        num_chains: of ``"nuts"``, one after the other; 4 by default.
        warmup_steps: of ``"nuts"``, in which each chain adapts; not kept; as many as ``num_samples`` by default.
        thin: of ``"nuts"``: keep every so manieth draw; all by default.
        num_particles: of the filter that finds ``x_marginal``; 200 by default, 0 leaves it out.
        max_memory: bytes that the result, and the draws that it is made from, may take.
        seed: of this call alone: torch's generators are left as they were. By default they are used and go on.
        progress: whether to say on standard error what the result will take, before it is built, and how far NUTS is.

    Returns:
        an ``arviz.InferenceData`` (ArviZ 0.23) or an ``xarray.DataTree`` (ArviZ 1); its attributes say how it was made.

    Raises:
        ValueError: for a model without latents, options that do not apply, a stream of several windows, or a result
            larger than ``max_memory``: nothing is thinned unasked.
    """
    options = asked(method, guide, num_samples, num_proposals, num_chains, warmup_steps, thin)
    data = _whole(data)
    (batch,) = data.batches()
    with seeded(seed, batch.inputs.device):
        shared, at_once = _first_look(model, batch, num_particles)
        marginals = bool(shared) and num_particles != 0
        if marginals and isinstance(program := underlying(model)[0], SequenceModel):
            program.rnn.dropout.refuse("x_marginal is by a particle filter, without masks", "num_particles=0")
        model = innovations(model) if options.method == "nuts" else model
        state_size(*_sizes(model, batch, options, marginals), options, max_memory, progress)
        if options.method == "nuts":
            draws = by_nuts(model, batch, num_samples, options.num_chains, options.warmup_steps, options.thin, progress)
        else:
            draws = by_importance(model, guide, batch, num_samples, options.num_proposals, at_once)
        groups = see(model, batch, draws.latents, options.kept, at_once)
        groups["prior"] = see(model, batch, {}, options.kept, at_once)["posterior"]
        if marginals:
            network = {name: draws.latents[name] for name in shared}
            groups["log_likelihood"] |= marginal(model, data, network, num_particles or PARTICLES)
    found = {group: _by_chain(variables, options.num_chains) for group, variables in groups.items()}
    found["sample_stats"] = _stats(draws, options, bool(shared))
    found["observed_data"] = observed(batch)
    index = np.arange(options.kept // options.num_chains) * options.thin
    return to_arviz(found, {**coordinates(batch), "draw": index}, _attributes(model, options, seed))


def _whole(data: Sequences | Stream) -> Sequences:
    """The sequences; of a stream, its columns."""
    if isinstance(data, Sequences):
        return data
    batch, *others = data.batches()
    if others:
        raise ValueError(
            f"data is a stream of {1 + len(others)} windows, whose states go on from one to the next, so that no "
            "window's draws would know what follows it; give a Stream whose window holds a whole column, or Sequences"
        )
    return Sequences(batch.inputs, batch.targets, batch.lengths)


def _first_look(model: Callable[..., Any], batch: Batch, num_particles: int | None) -> tuple[list[str], int]:
    """The sites that sequences share, and how many draws are run at once."""
    with Largest() as largest:
        trace, _ = run(model, batch, 1)
    latents = sampled_sites(trace)
    if not latents:
        raise ValueError("model samples nothing beside the data, so it has no posterior; give it a spread above 0")
    shared = [site["name"] for site in latents if is_shared(site)]
    if num_particles is not None and (not isinstance(num_particles, int) or num_particles < 0):
        raise ValueError(f"num_particles must be a whole number of at least 0, got {num_particles!r}")
    if num_particles and not shared:
        raise ValueError(
            f"num_particles={num_particles} has no effect where neither γ nor weights are sampled: log p(x) is then "
            "one number, which evaluate(model, data, 'particle-filter') finds; drop it"
        )
    return shared, max(1, LARGEST // largest.numbers)


def _sizes(model: Callable[..., Any], batch: Batch, options: Options, marginals: bool) -> tuple[int, int]:
    """Bytes of the result, and of the draws that it is made from."""
    trace, _ = run(model, batch, 1)
    latents = sum(site["value"].nbytes for site in sampled_sites(trace))
    each = {group: sum(v.nbytes for _, v in found.values()) for group, found in see(model, batch, {}, 1, 1).items()}
    each["prior"], each["marginals"] = each["posterior"], 8 * len(batch.targets) * marginals
    return sum(each.values()) * options.kept, (options.kept + (options.num_proposals or options.num_samples)) * latents


def _by_chain(variables: Variables, chains: int) -> Variables:
    return {
        name: (("chain", "draw", *dims), values.reshape(chains, -1, *values.shape[1:]))
        for name, (dims, values) in variables.items()
    }


def _stats(draws: Draws, options: Options, shared: bool) -> Variables:
    """What tells how far to trust the draws; warns of resampled ones that cannot be."""
    if draws.diverging is not None:
        return _by_chain({"diverging": ((), draws.diverging.numpy())}, options.num_chains)
    assert draws.log_weights is not None
    k, effective = pareto_k(draws.log_weights.T.numpy()), effective_samples(draws.log_weights).numpy()
    bad = int((k > RELIABLE).sum())
    if bad and options.num_proposals is not None:
        whom = "all sequences together, which share γ or weights" if shared else f"{bad} of {len(k)} sequences"
        warnings.warn(
            f"posterior: the Pareto k̂ is above {RELIABLE} (up to {k.max():.2f}) for {whom}: "
            f"{options.num_proposals} proposals from the {options.method} do not reach the posterior, and draws "
            "resampled from them misstate it; take a (better) guide, method='nuts', or more num_proposals",
            stacklevel=4,  # the line that calls posterior
        )
    found = {"pareto_k": k, "effective_proposals": effective}
    return {name: ((), values[0]) if shared else (("sequence",), values) for name, values in found.items()}


def _attributes(model: Callable[..., Any], options: Options, seed: int | None) -> dict[str, Any]:
    """How it was made, as strings and numbers."""
    resampled = "" if options.num_proposals is None else ", resampled by importance"
    ways = {"prior": f"prior{resampled}", "guide": f"guide{resampled or ', as drawn'}", "nuts": "NUTS on innovations"}
    made: dict[str, Any] = {
        "inference_library": "noisin_pyro",
        **{f"{name}_version": version(name) for name in ("noisin_pyro", "pyro-ppl", "torch")},
        "method": ways[options.method],
        "seed": "not given" if seed is None else seed,
    }
    made |= {name: getattr(options, name) for name in options.of_its_method() if getattr(options, name) is not None}
    program, _ = underlying(model)
    if isinstance(program, SequenceModel):
        rnn = program.rnn
        spreads = {f"gamma_{layer}": getattr(rnn, f"spread_{layer}") for layer in rnn.noisy_layers}
        like = next(rnn.parameters()).detach()
        made |= {"noise": f"{rnn.noise.name}:{rnn.noise.form}", "cell": rnn.cell.name}
        made |= {name: str(s.prior) if s.prior is not None else float(s(like)) for name, s in spreads.items()}
    return made
