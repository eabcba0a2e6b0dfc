"""Importance weights of whole sequences, the bound log (1/S) Σ_s w_s, and diagnostics of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from torch import Tensor

from noisin_pyro.inference.traces import (
    PARTICLES,
    all_sites,
    bound_sites,
    is_deterministic,
    latent_sites,
    scored_sites,
)

Traces = Sequence[tuple[Trace, Trace]]


def log_mean_exp(log_w: Tensor) -> Tensor:
    """log (1/S) Σ_s exp(log w_s), ``(...)``, from ``(S, ...)``."""
    return log_w.logsumexp(0) - math.log(len(log_w))


def effective_sample_size(log_w: Tensor, dim: int = 0) -> Tensor:
    """(Σ_s w_s)² / Σ_s w_s² along ``dim``."""
    return (2 * log_w.logsumexp(dim) - (2 * log_w).logsumexp(dim)).exp()


def log_mean_weights(traces: Traces, nesting: int, num_particles: int) -> tuple[Tensor, Tensor]:
    """Σ over sequences of log (1/S) Σ_s w_s, scaled for subsampling, and a surrogate with an unbiased gradient.

    Args:
        traces: one pair of traces with particles vectorized in dimension -(nesting + 1), or S pairs.
        nesting: maximum nesting depth of the model's own plates.
        num_particles: S.

    Raises:
        ValueError: a latent site outside the plate of the sequences, an observed one there whose density depends on the
            samples, or sites with different scales.
    """
    log_w = sequence_weights(traces, nesting, num_particles)
    plates = _sequence_plates(traces[0][0])
    scale = _common_scale(*traces[0], plates)
    value = log_mean_exp(log_w)
    shared: Any = torch.zeros(())
    for site in all_sites(traces[0][0]):
        if site["is_observed"] and not plates_of(site) >= plates:
            shared = shared + _shared_log_prob(site["name"], traces, nesting, num_particles)
    surrogate = value
    for pair in traces:  # ∇E[L] = E[∇L + L Σ_s ∇log q(z_s)], for the L of each sequence
        for site, score in scored_sites(*pair):
            score = _sum_to(score, site, plates)
            particles = score.sum(-nesting - 1) if score.dim() > nesting else score
            surrogate = surrogate + value.detach() * particles
    return (scale * value).sum() + shared, (scale * surrogate).sum() + shared


def sequence_weights(traces: Traces, nesting: int, num_particles: int) -> Tensor:
    """log w of each sample and sequence, ``(S, ...)`` with the sequences' plates on the right, without scales.

    The arguments are those of :func:`log_mean_weights`. Observed sites outside the sequences' plates are left out.

    Raises:
        ValueError: a latent site outside the plate of the sequences.
    """
    plates = _sequence_plates(traces[0][0])
    for model_trace, guide_trace in traces:
        _refuse_outside(plates, latent_sites(model_trace) + latent_sites(guide_trace))
    return _particles_first([log_weights(*pair, plates) for pair in traces], nesting, num_particles)


def log_weights(model_trace: Trace, guide_trace: Trace, plates: frozenset[Any]) -> Tensor:
    """log p(x, z_guided | z_prior) - log q(z_guided) of each sequence, without scales."""
    terms = [_sum_to(_unscaled(site), site, plates) for site in _bound_sites_inside(model_trace, guide_trace, plates)]
    terms += [-_sum_to(_unscaled(site), site, plates) for site in all_sites(guide_trace)]
    total: Any = torch.zeros(())
    for term in terms:
        total = total + term
    return total


def _shared_log_prob(name: str, traces: Traces, nesting: int, num_particles: int) -> Tensor:
    """log p of an observed site outside the sequences' plates, which stays outside the logarithm.

    Raises:
        ValueError: a density that differs between the samples.
    """
    nodes: list[Any] = [model_trace.nodes[name] for model_trace, _ in traces]
    terms = [_sum_to(site["log_prob"], site, frozenset()) for site in nodes]
    log_p = _particles_first(terms, nesting, num_particles)
    # comparing tensors synchronizes with the device, so it belongs to validation
    if is_validation_enabled() and not torch.allclose(log_p, log_p[:1].expand_as(log_p), rtol=1e-6, equal_nan=True):
        raise ValueError(
            f"each sequence has its own importance weights, but the density of {name!r}, observed outside their plate, "
            'depends on what is sampled for all of them; use bound="elbo"'
        )
    return log_p.mean(0).sum()


def _sequence_plates(model_trace: Trace) -> frozenset[Any]:
    """The plates that all observed sites (within any plate) share. Each element of these plates has its own weights."""
    observed = [site for site in all_sites(model_trace) if site["is_observed"] and not is_deterministic(site)]
    stacks = [plates for site in observed if (plates := plates_of(site))]
    common = frozenset.intersection(*stacks) if stacks else frozenset()
    if stacks and not common:
        raise ValueError(
            'importance weights need a plate that contains all observed sites; open one, or train with bound="elbo"'
        )
    return common


def _bound_sites_inside(model_trace: Trace, guide_trace: Trace, plates: frozenset[Any]) -> list[Any]:
    return [site for site in bound_sites(model_trace, guide_trace) if plates_of(site) >= plates]


def plates_of(site: Any) -> frozenset[Any]:
    """The vectorized plates of a site, without that of the samples."""
    return frozenset(f for f in site["cond_indep_stack"] if f.vectorized and f.name != PARTICLES)


def _refuse_outside(plates: frozenset[Any], latents: list[Any]) -> None:
    for site in latents:
        missing = [plate.name for plate in plates - plates_of(site)]
        if missing:
            raise ValueError(
                f"each sequence needs its own importance weights, but {site['name']!r} is sampled outside the plate "
                f"{missing[0]!r}, so all sequences share it; condition on it, or use bound='elbo' for training, and "
                "method='mean' or 'ensemble' for evaluation"
            )


def _common_scale(model_trace: Trace, guide_trace: Trace, plates: frozenset[Any]) -> float | Tensor:
    sites = _bound_sites_inside(model_trace, guide_trace, plates) + all_sites(guide_trace)
    scales = [site["scale"] for site in sites]
    first = scales[0] if scales else 1.0
    for scale in scales:
        # comparing tensors synchronizes with the device, so it belongs to validation
        compared = is_validation_enabled() or not (isinstance(scale, Tensor) or isinstance(first, Tensor))
        if scale is not first and compared and not bool(torch.all(torch.as_tensor(scale) == torch.as_tensor(first))):
            raise ValueError(
                'bound="importance" needs the same scale at all sites, or it is not a bound; '
                f'got {first} and {scale}; use bound="elbo" with scaled terms'
            )
    return first


def _unscaled(site: Any) -> Tensor:
    return scale_and_mask(site["unscaled_log_prob"], mask=site["mask"])


def _sum_to(term: Tensor, site: Any, plates: frozenset[Any]) -> Tensor:
    """Sum ``term`` over all plates of ``site`` but ``plates``."""
    for plate in plates_of(site) - plates:
        if -plate.dim <= term.dim():
            term = term.sum(plate.dim, keepdim=True)
    return term


def _particles_first(log_w: list[Tensor], nesting: int, num_particles: int) -> Tensor:
    """Stack or expand log-weights to ``(S, ...)``, with the sequences' plates on the right."""
    if len(log_w) > 1 or num_particles == 1:
        return torch.stack(torch.broadcast_tensors(*log_w))
    shape = torch.broadcast_shapes(log_w[0].shape, (num_particles,) + (1,) * nesting)
    return log_w[0].expand(shape)
