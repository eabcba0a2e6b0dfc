"""Posterior samplers: draws from the prior or a guide, with or without importance resampling, and NUTS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from noisin_pyro.data import Batch
from noisin_pyro.inference.blocks import blocks
from noisin_pyro.inference.traces import PARTICLES, all_sites, bound_sites, guided_traces, latent_sites
from noisin_pyro.models import innovations, site_info

Program = Callable[..., Any]
Latents = dict[str, Tensor]  # by site name: (S, B, ...), or (S, 1, ...) for a site that sequences share


class Draws(NamedTuple):
    """S draws of a model's latent sites, and diagnostics.

    Attributes:
        latents: draws by site name, ``(S, B, ...)``, or ``(S, 1, ...)`` for a site outside the plate of the sequences.
        log_weights: importance weights of the proposals, ``(M, B)``, or ``(M, 1)`` if sequences share a latent; None
            for NUTS and the smoother.
        diverging, energy: for NUTS, whether the trajectory of each draw diverged, and its energy, ``(S,)``; else None.
        effective_particles: for the smoother, the mean effective sample size of each filter, ``(chains, B)``; else
            None.
    """

    latents: Latents
    log_weights: Tensor | None = None
    diverging: Tensor | None = None
    energy: Tensor | None = None
    effective_particles: Tensor | None = None


def run(model: Program, batch: Batch, num_draws: int, guide: Program | None = None) -> tuple[Trace, Trace]:
    """Run the guide, and the model with its values, with the draws in a plate of dimension -2."""
    plate = pyro.plate(PARTICLES, num_draws, dim=-2)
    with poutine.block():
        return guided_traces(model, guide, (batch.inputs, batch.targets), batch.keywords, plate)


def is_shared(site: Any) -> bool:
    """Whether a site is outside the plate of the sequences, so that all sequences share it."""
    return not any(frame.vectorized and frame.dim == -1 for frame in site["cond_indep_stack"])


def by_importance(
    model: Program, guide: Program | None, batch: Batch, num_samples: int, num_proposals: int | None, draws_per_run: int
) -> Draws:
    """Draw whole sequences from the guide (other sites from the prior), with their importance weights.

    Args:
        num_proposals: number of proposals, from which ``num_samples`` draws are resampled in proportion to their
            weights, for each sequence separately, or for all together if they share a latent. None: no resampling.
        draws_per_run: number of draws in one run of the model.
    """
    log_w_blocks, draws = [], []
    for block in blocks(num_proposals or num_samples, draws_per_run):
        size = block.stop - block.start
        model_trace, guide_trace = run(model, batch, size, guide)
        in_bound = {site["name"] for site in bound_sites(model_trace, guide_trace)}
        model_trace.compute_log_prob(lambda name, _, in_bound=in_bound: name in in_bound)
        guide_trace.compute_log_prob()
        log_w_blocks.append(_log_weights(model_trace, guide_trace, len(batch.targets), size))
        draws.append({site["name"]: site["value"] for site in latent_sites(model_trace)})
    log_w = torch.cat(log_w_blocks)
    latents = {name: torch.cat([each[name] for each in draws]) for name in draws[0]}
    if num_proposals is not None:
        probabilities = (log_w - log_w.amax(0)).exp()
        index = torch.multinomial(probabilities.T, num_samples, replacement=True).T
        latents = {name: _resampled(value, index) for name, value in latents.items()}
    return Draws(latents, log_w)


class _Momentum(Messenger):
    """Records the kinetic energy of the momentum that Pyro draws, in units of its mass matrix, at sites ``r_t=...``."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = torch.zeros(())

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"].startswith("r_t="):
            self.energy = self.energy + msg["value"].square().sum() / 2


class _EnergyNUTS(NUTS):
    """NUTS that records the energy at the start of each trajectory, potential plus kinetic, in warmup too."""

    def __init__(self, model: Program) -> None:
        super().__init__(model)
        self.energies: list[Tensor] = []

    def sample(self, params: Latents) -> Latents:
        with _Momentum() as momentum:
            position = super().sample(params)
        with torch.no_grad():
            self.energies.append(self.potential_fn(params) + momentum.energy)  # type: ignore[misc]
        return position


def by_nuts(
    model: Program, batch: Batch, num_samples: int, num_chains: int, warmup_steps: int, thin: int, progress: bool
) -> Draws:
    """Run chains of the No-U-Turn sampler on the innovations, one after the other, and keep every ``thin``-th draw."""
    view = innovations(model)
    trace, _ = run(view, batch, 1)
    for site in latent_sites(trace):
        family = site_info(site).family
        if site["fn"].support.is_discrete if family is None else family.discrete:
            raise ValueError(f"method='nuts' needs densities, but {site['name']!r} is discrete; use method='prior'")
    chains, diverging, energy = [], [], []
    for _ in range(num_chains):
        diagnostics: dict[str, Any] = {}

        def hook(kernel: NUTS, _samples: Any, stage: str, _index: int, latest: dict[str, Any] = diagnostics) -> None:
            if stage.startswith("Sample"):
                latest.update(kernel.diagnostics())

        kernel = _EnergyNUTS(view)
        mcmc = MCMC(kernel, num_samples, warmup_steps, disable_progbar=not progress, hook_fn=hook)
        with torch.enable_grad():
            mcmc.run(batch.inputs, batch.targets, **batch.keywords)
        chains.append({name: value.detach()[::thin] for name, value in mcmc.get_samples().items()})
        diverged = torch.zeros(num_samples, dtype=torch.bool)
        diverged[diagnostics["divergences"]] = True
        diverging.append(diverged[::thin])
        energy.append(torch.stack(kernel.energies[-num_samples:]).double().cpu()[::thin])
    latents = {name: torch.cat([chain[name] for chain in chains]) for name in chains[0]}
    shared = {site["name"] for site in latent_sites(trace) if is_shared(site)}
    return Draws(
        {name: value.unsqueeze(1) if name in shared else value for name, value in latents.items()},
        diverging=torch.cat(diverging),
        energy=torch.cat(energy),
    )


def _resampled(value: Tensor, index: Tensor) -> Tensor:
    """Select proposals ``(M, B, ...)`` by indices ``(S, B)`` or ``(S, 1)``; returns ``(S, B, ...)``."""
    rows = value.shape[1]
    return value[index.expand(-1, rows), torch.arange(rows)]


def _log_weights(model_trace: Trace, guide_trace: Trace, rows: int, num_draws: int) -> Tensor:
    """log p(x, z_guided | z_prior) - log q(z_guided) of each sequence, or of all together if they share a latent."""
    terms = [(site, 1) for site in bound_sites(model_trace, guide_trace)]
    terms += [(site, -1) for site in all_sites(guide_trace)]
    each, together = torch.zeros(num_draws, rows).double(), torch.zeros(num_draws, 1).double()
    for site, sign in terms:
        log_prob = sign * site["log_prob"].double().cpu()
        if is_shared(site):
            together = together + log_prob
        else:
            each = each + log_prob
    shared = any(is_shared(site) for site in latent_sites(model_trace))
    return each.sum(1, keepdim=True) + together if shared else each
