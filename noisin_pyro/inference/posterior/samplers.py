"""Where a posterior's draws come from: the prior reweighted, a guide, or NUTS."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.poutine import Trace
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor

from noisin_pyro.data import Batch
from noisin_pyro.inference.sites import PARTICLES, priced_sites, refuse_wrong_sites, sample_sites, sampled_sites
from noisin_pyro.models import innovations

Program = Callable[..., Any]
Latents = dict[str, Tensor]  # by site: (S, B, ...) of each sequence, (S, 1, ...) of what they share


class Draws(NamedTuple):
    """S draws of a model's latent sites, and what tells how far to trust them.

    Attributes:
        latents: by site, ``(S, B, ...)``, or ``(S, 1, ...)`` of a site outside the plate of the sequences.
        log_weights: of the proposals, ``(M, B)``, or ``(M, 1)`` where sequences share a latent; None of NUTS.
        diverging: which of the draws of NUTS ended a diverging trajectory, ``(S,)``.
    """

    latents: Latents
    log_weights: Tensor | None = None
    diverging: Tensor | None = None


def run(model: Program, batch: Batch, num_draws: int, guide: Program | None = None) -> tuple[Trace, Trace]:
    """One run of the guide and of the model against it, with ``num_draws`` draws in a plate of dimension -2."""
    arguments: Any = (batch.inputs, batch.targets)
    with poutine.block(), pyro.plate(PARTICLES, num_draws, dim=-2):
        guide_trace = Trace()
        if guide is not None:
            guide_trace = poutine.trace(guide).get_trace(*arguments, lengths=batch.lengths)
        replayed = poutine.replay(model, trace=guide_trace)
        model_trace = poutine.trace(replayed).get_trace(*arguments, lengths=batch.lengths)
    guide_trace, model_trace = prune_subsample_sites(guide_trace), prune_subsample_sites(model_trace)
    refuse_wrong_sites(model_trace, guide_trace)
    return model_trace, guide_trace


def is_shared(site: Any) -> bool:
    """Whether a site is outside the plate of the sequences, so that they have it in common."""
    return not any(frame.vectorized and frame.dim == -1 for frame in site["cond_indep_stack"])


def pieces(total: int, at_once: int) -> Iterator[slice]:
    """``total`` draws, so many at once."""
    return (slice(start, min(start + at_once, total)) for start in range(0, total, at_once))


def by_importance(
    model: Program, guide: Program | None, batch: Batch, num_samples: int, num_proposals: int | None, at_once: int
) -> Draws:
    """Whole sequences from the guide (where it samples nothing, from the prior), with their importance weights.

    Args:
        num_proposals: draws that ``num_samples`` are then resampled from, in proportion to their weights, each sequence
            alone, or all together where they share a latent; None leaves the draws as they are.
    """
    log_w, found = [], []
    for piece in pieces(num_proposals or num_samples, at_once):
        model_trace, guide_trace = run(model, batch, piece.stop - piece.start, guide)
        priced = {site["name"] for site in priced_sites(model_trace, guide_trace)}
        model_trace.compute_log_prob(lambda name, _, priced=priced: name in priced)
        guide_trace.compute_log_prob()
        log_w.append(_log_weights(model_trace, guide_trace, len(batch.targets), piece.stop - piece.start))
        found.append({site["name"]: site["value"] for site in sampled_sites(model_trace)})
    weights = torch.cat(log_w)
    latents = {name: torch.cat([each[name] for each in found]) for name in found[0]}
    if num_proposals is not None:
        probabilities = (weights - weights.amax(0)).exp()
        chosen = torch.multinomial(probabilities.T, num_samples, replacement=True).T
        latents = {name: _chosen(value, chosen) for name, value in latents.items()}
    return Draws(latents, weights)


def by_nuts(
    model: Program, batch: Batch, num_samples: int, num_chains: int, warmup_steps: int, thin: int, progress: bool
) -> Draws:
    """Chains of the No-U-Turn sampler on the innovations, one after the other; every ``thin``-th draw is kept."""
    view = innovations(model)
    trace, _ = run(view, batch, 1)
    for site in sampled_sites(trace):
        family = site["infer"].get("family")
        if site["fn"].support.is_discrete if family is None else family.discrete:
            raise ValueError(f"method='nuts' needs densities, but {site['name']!r} is discrete; use method='prior'")
    chains, diverging = [], []
    for _ in range(num_chains):
        told: dict[str, Any] = {}

        def hook(kernel: NUTS, _samples: Any, stage: str, _index: int, told: dict[str, Any] = told) -> None:
            if stage.startswith("Sample"):
                told.update(kernel.diagnostics())

        mcmc = MCMC(NUTS(view), num_samples, warmup_steps, disable_progbar=not progress, hook_fn=hook)
        with torch.enable_grad():
            mcmc.run(batch.inputs, batch.targets, lengths=batch.lengths)
        chains.append({name: value.detach()[::thin] for name, value in mcmc.get_samples().items()})
        ended = torch.zeros(num_samples, dtype=torch.bool)
        ended[told["divergences"]] = True
        diverging.append(ended[::thin])
    latents = {name: torch.cat([chain[name] for chain in chains]) for name in chains[0]}
    shared = {site["name"] for site in sampled_sites(trace) if is_shared(site)}
    return Draws(
        {name: value.unsqueeze(1) if name in shared else value for name, value in latents.items()},
        diverging=torch.cat(diverging),
    )


def _chosen(value: Tensor, chosen: Tensor) -> Tensor:
    """Of proposals ``(M, B, ...)`` those that each sequence chose, ``(S, B)`` or ``(S, 1)``."""
    rows = value.shape[1]
    return value[chosen.expand(-1, rows), torch.arange(rows)]


def _log_weights(model_trace: Trace, guide_trace: Trace, rows: int, num_draws: int) -> Tensor:
    """log p(x, z_guided | z_prior) - log q(z_guided): of each sequence, or of all together if they share a latent."""
    priced = [(site, 1) for site in priced_sites(model_trace, guide_trace)]
    priced += [(site, -1) for site in sample_sites(guide_trace)]
    each, together = torch.zeros(num_draws, rows).double(), torch.zeros(num_draws, 1).double()
    for site, sign in priced:
        log_prob = sign * site["log_prob"].double().cpu()
        if is_shared(site):
            together = together + log_prob
        else:
            each = each + log_prob
    shared = any(is_shared(site) for site in sampled_sites(model_trace))
    return each.sum(1, keepdim=True) + together if shared else each
