"""Sites of the traces of a model and a guide: which enter a bound, and which a guide may sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pyro.distributions.util import is_identically_zero
from pyro.poutine import Trace
from torch import Tensor

from noisin_pyro.models import NoisyPath, site_info

PARTICLES = "num_particles_vectorized"  # name of the plate of S samples, the same as in Pyro's ELBOs


def all_sites(trace: Trace) -> list[Any]:
    """The sample sites of a trace, latent and observed."""
    nodes: dict[str, Any] = dict(trace.nodes)
    return [site for site in nodes.values() if site["type"] == "sample"]


def latent_sites(trace: Trace) -> list[Any]:
    """The sample sites that are not observed."""
    return [site for site in all_sites(trace) if not site["is_observed"]]


def bound_sites(model_trace: Trace, guide_trace: Trace) -> list[Any]:
    """The model's sites whose density enters the bound: observed sites, and sites that the guide samples."""
    return [site for site in all_sites(model_trace) if site["is_observed"] or site["name"] in guide_trace]


def scored_sites(model_trace: Trace, guide_trace: Trace) -> Iterator[tuple[Any, Tensor]]:
    """Latent sites without a pathwise gradient, each with the log-density whose gradient is its score function."""
    for site in all_sites(guide_trace):
        score = site["score_parts"].score_function
        if not is_identically_zero(score):
            yield site, score
    for site in latent_sites(model_trace):
        if site["name"] not in guide_trace and not site["fn"].has_rsample:
            yield site, site["unscaled_log_prob"]


def refuse_wrong_sites(model_trace: Trace, guide_trace: Trace) -> None:
    """Check the sites that the guide samples.

    Raises:
        ValueError: a site that is not in the model, that the model observes or computes, or whose law a guide cannot
            replace.
    """
    in_model = {site["name"]: site for site in all_sites(model_trace)}
    for site in latent_sites(guide_trace):
        name = site["name"]
        if name not in in_model:
            if site["infer"].get("is_auxiliary"):
                continue
            latents = ", ".join(s["name"] for s in latent_sites(model_trace)) or "none"
            is_noise = name.removesuffix("_noise") in in_model
            view = "; pass innovations(model), which has this site" if is_noise else ""
            raise ValueError(
                f"guide samples {name!r}, which is not in the model; the model's latent sites are: {latents}{view}"
            )
        _refuse_guide_of(in_model[name])


def _refuse_guide_of(site: Any) -> None:
    """Raise a ValueError for a site of the model that a guide may not sample."""
    name, info = site["name"], site_info(site)
    if info.computed is not None:
        raise ValueError(
            f"guide samples {name!r}, which the model computes in this view; define the guide on the same view"
        )
    if site["is_observed"]:
        raise ValueError(f"guide samples {name!r}, which the model observes; remove it from the guide")
    if isinstance(site["fn"], NoisyPath):
        site["fn"].support  # noqa: B018  raises if a guide cannot sample the states
    elif info.family is not None and info.family.discrete:
        raise ValueError(
            f"guide samples {name!r}, whose {info.family.name} noise is discrete; leave the site to the prior, "
            "or use a family with a density"
        )
    if info.padding_is_flat:
        raise ValueError(
            f"guide samples {name!r}, whose padded steps have no density, so the objective would not be a bound; "
            "use innovations(model), in which padded steps keep their prior"
        )
