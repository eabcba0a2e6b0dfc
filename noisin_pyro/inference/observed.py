"""Which targets a program scores: what is masked is in no sum and in no count, whichever method scores it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from pyro.distributions import ExpandedDistribution, Independent, MaskedDistribution
from pyro.distributions.util import scale_and_mask
from pyro.poutine import Trace
from pyro.poutine.condition_messenger import ConditionMessenger
from pyro.poutine.messenger import Messenger
from torch import Tensor

from noisin_pyro.data import Batch
from noisin_pyro.inference.importance_weights import plates_of
from noisin_pyro.inference.traces import all_sites, is_deterministic
from noisin_pyro.models import Mask, SequenceModel, scored_steps, site_info, underlying
from noisin_pyro.models.output import require_output
from noisin_pyro.models.views import handlers_around

Program = Callable[..., Any]


def refuse_given_targets(model: Program) -> None:
    """Check that no handler around a :class:`SequenceModel` gives the targets, beside the data.

    Raises:
        ValueError: where one conditions on ``x``. Some methods would score its values, others those of the data.
    """
    given = [each for each in handlers_around(model) if isinstance(each, ConditionMessenger)]
    if isinstance(underlying(model)[0], SequenceModel) and any("x" in handler.data for handler in given):
        raise ValueError("'x' is conditioned on, but the data give the targets; drop that condition")


def steps_of(batch: Batch) -> Tensor:
    """Which targets of a batch are neither padding nor missing, ``(B, T)``."""
    shape = batch.targets.shape[:2]
    scored = scored_steps(batch.lengths, batch.mask, shape[1])
    return torch.ones(shape, dtype=torch.bool, device=batch.targets.device) if scored is None else scored


class ObservedSites(Messenger):
    """Collects the observed sites of a program that runs in this context, without the states of noisy layers."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: list[Any] = []

    def _pyro_post_sample(self, msg: Any) -> None:
        self.sites.append(msg)


def observed_steps(sites: Iterable[Any], batch: Batch) -> Tensor:
    """Which steps of each sequence a program scores, ``(B, T)``: neither padding, nor missing, nor masked.

    Args:
        sites: sample sites of a run on the batch. Masks may be those of ``poutine.mask`` or of the distribution of an
            observed site, as in ``emission.mask(...)``.

    Raises:
        ValueError: masks from which it does not follow which steps are scored, or a program that scores padding,
            missing targets, or more than one observed site: some methods score the emission alone, others every site.
    """
    shape, scored = batch.targets.shape, steps_of(batch)
    whole, others = _observations(sites, batch)
    if others and not whole:
        raise ValueError(
            f"the program observes no site of the targets' shape, {tuple(shape)}, only {others[0]['name']!r} and the "
            "like, so it is not known which steps it scores; observe all targets in one site"
        )
    if not whole:
        return scored
    site = whole[0]
    for other in whole[1:] + others:
        if plates_of(site) & plates_of(other):  # else no method scores it
            raise ValueError(
                f"the program observes {other['name']!r} beside the targets at {site['name']!r}, which some methods "
                "would score and others not; observe the targets alone, or use pyro.deterministic for what is computed"
            )
    steps = _steps(site, batch)
    if (steps & ~scored).any():
        raise ValueError(
            f"the program scores steps at {site['name']!r} that are padding or missing; mask them there, as "
            "SequenceModel does with lengths and mask"
        )
    return steps


def _observations(sites: Iterable[Any], batch: Batch) -> tuple[list[Any], list[Any]]:
    """The observed sites that have the shape of the targets, and the others."""
    shape = batch.targets.shape
    # a GuideMessenger runs the program as well, so that its sites come twice
    by_name = {site["name"]: site for site in sites if not is_latent(site)}
    observed = list(by_name.values())
    whole = [site for site in observed if site["fn"].shape()[-len(shape) :] == shape]
    return whole, [site for site in observed if site["fn"].shape()[-len(shape) :] != shape]


def require_same_emission(trace: Trace, batch: Batch) -> None:
    """Check that a program returns the emission that it observes: some methods score the one, some the other.

    Raises:
        ValueError: the targets have another log-probability under the returned emission.
    """
    whole, _ = _observations(all_sites(trace), batch)
    if not whole:
        return
    site, steps = whole[0], observed_steps(all_sites(trace), batch)
    nodes: dict[str, Any] = dict(trace.nodes)
    emission = require_output(nodes["_RETURN"]["value"]).emission
    own = scale_and_mask(site["fn"].log_prob(site["value"]), mask=site["mask"]).sum()
    returned = emission.log_prob(batch.targets).where(steps, 0.0).sum()
    if bool(((own - returned).abs() > 1e-3 * own.abs().clamp(min=1.0)) & own.isfinite() & returned.isfinite()):
        raise ValueError(
            f"the program returns an emission under which the targets have log-probability {returned:.6g}, but at the "
            f"observed site {site['name']!r} they have {own:.6g}; return the emission that is observed there"
        )


def _steps(site: Any, batch: Batch) -> Tensor:
    """The steps at which a site of all targets is not masked, ``(B, T)``."""
    shape = batch.targets.shape
    time_depth = site["fn"].event_dim - (len(shape) - 2)  # 1 if time is a dimension of the event, 0 if it is a plate
    steps = torch.ones(shape[:2], dtype=torch.bool, device=batch.targets.device)
    for mask, depth in [(site["mask"], 0), *_masks(site["fn"])]:
        if mask is None or mask is True:
            continue
        if depth > time_depth:
            raise ValueError(
                f"the program masks parts of single steps at {site['name']!r}, so the number of steps is not known; "
                "mask whole steps"
            )
        steps = steps & (mask.reshape(*mask.shape, *[1] * (time_depth - depth)) if isinstance(mask, Tensor) else mask)
    flat = steps.reshape(-1, *shape[:2])
    if (flat != flat[0]).any():
        raise ValueError(
            f"the program masks {site['name']!r} differently in different samples, so there is no one number of steps"
        )
    return flat[0]


def is_latent(site: Any) -> bool:
    """Whether a site is sampled, or a latent one that is computed or conditioned on."""
    info, is_computed = site_info(site), is_deterministic(site)
    return (
        not site["is_observed"]
        or is_computed
        or info.family is not None
        or info.computed is not None
        or isinstance(site["fn"], Mask)
    )


def _masks(law: Any) -> list[tuple[Tensor | bool, int]]:
    """The masks within a distribution, each with the number of event dimensions that it sees as batch dimensions."""
    masks, depth = [], 0
    while isinstance(law, MaskedDistribution | Independent | ExpandedDistribution):
        if isinstance(law, MaskedDistribution):
            masks.append((law._mask, depth))
        elif isinstance(law, Independent):
            depth += law.reinterpreted_batch_ndims
        law = law.base_dist
    return masks
