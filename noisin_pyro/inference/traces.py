"""Traces of a model and a guide of any kind: what a guide may sample, and which sites enter a bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions.util import is_identically_zero
from pyro.infer.autoguide import AutoGuide
from pyro.infer.util import is_validation_enabled
from pyro.poutine import Trace
from pyro.poutine.guide import GuideMessenger
from pyro.poutine.messenger import Messenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.util import prune_subsample_sites, site_is_factor, site_is_subsample
from pyro.util import check_model_guide_match
from torch import Tensor

from noisin_pyro.inference.guides.view import program_of, view_for
from noisin_pyro.models import NoisyPath, site_info

Program = Callable[..., Any]

PARTICLES = "num_particles_vectorized"  # name of the plate of S samples, the same as in Pyro's ELBOs


def guided_traces(
    model: Program, guide: Program | None, args: Any, kwargs: Any, plate: pyro.plate | None = None
) -> tuple[Trace, Trace]:
    """Run a guide, and the model with the values that it samples. All that uses a guide calls this function.

    Args:
        model: the model; :func:`view_for` applies the view whose sites the guide samples.
        guide: none, a program, an automatic guide, or a ``GuideMessenger``.
        plate: a plate around both, of several samples.

    Returns:
        the traces of the model and of the guide, without the sites of subsampling.

    Raises:
        ValueError: sites or shapes of the guide that the model does not have.
    """
    model, guide_trace = view_for(guide, model), Trace()
    if plate is not None:
        model = plate(model)
    if guide is not None:
        guide_trace = _guide_trace(guide, args, kwargs, plate)
        _refuse_observations(guide_trace)
        model = _CheckedReplay(guide_trace)(model)
    model_trace = poutine.trace(model).get_trace(*args, **kwargs)
    for site in latent_sites(guide_trace):
        if site["infer"].get("is_auxiliary") and "prior" in site["infer"]:  # a messenger's are in its model too
            model_trace.add_node(site["name"], **(site | {"fn": site["infer"]["prior"]}))
    pruned = prune_subsample_sites(model_trace), prune_subsample_sites(guide_trace)
    refuse_wrong_sites(*pruned)
    if guide is not None and is_validation_enabled():
        _warn_as_pyro(model_trace, guide_trace)
    return pruned


def _guide_trace(guide: Program, args: Any, kwargs: Any, plate: pyro.plate | None) -> Trace:
    """The trace of a guide of any kind, without the sites of its model."""
    inner = program_of(guide)
    is_new = isinstance(inner, AutoGuide) and inner.prototype_trace is None
    is_new |= isinstance(inner, GuideMessenger) and not getattr(inner, "trace", None)  # a copy has no trace
    if plate is not None and is_new:
        with poutine.block():
            inner(*args, **kwargs)  # the first run makes the parameters, which all samples share
    if plate is not None:
        guide = plate(guide)
    if not isinstance(inner, GuideMessenger):
        return poutine.trace(guide).get_trace(*args, **kwargs)
    try:
        with _CheckedPosteriors():
            guide(*args, **kwargs)  # a run of its model, whose sites are in its trace too
    except (RuntimeError, ValueError) as error:
        if type(error) is not RuntimeError and "pyro.param" not in str(error):
            raise
        raise ValueError(  # torch and Pyro have no type for errors of shapes
            f"guide: {type(inner).__name__} cannot run on this batch: {error}; its parameters have the shapes of the "
            "batch of its first run: make a guide for this batch, or one whose parameters all sequences share, by "
            "amortized_plates=('sequences',)"
        ) from error
    trace = inner.trace.copy()
    for site in all_sites(trace):
        if site["is_observed"] and "prior" not in site["infer"]:
            trace.remove_node(site["name"])
    return trace


class _CheckedPosteriors(Messenger):
    """Checks each event that a ``GuideMessenger`` samples before its model computes with it."""

    def _pyro_post_sample(self, msg: Any) -> None:
        prior = msg["infer"].get("prior")
        if prior is not None and prior.event_shape != msg["fn"].event_shape:
            _refuse_other_shape(msg | {"fn": prior}, msg)


class _CheckedReplay(ReplayMessenger):
    """Replays a guide's values, each checked before the model computes with it."""

    def _pyro_sample(self, msg: Any) -> None:
        guide_site = self._guide_site(msg)
        if guide_site is not None and site_is_subsample(msg):
            _refuse_other_plate(msg, guide_site)
        own = site_info(msg).as_infer()
        super()._pyro_sample(msg)
        msg["infer"] = msg["infer"] | own  # the replayed site has the guide's

    def _pyro_post_sample(self, msg: Any) -> None:
        guide_site = self._guide_site(msg)
        if guide_site is not None and not msg["is_observed"] and not site_is_subsample(msg):
            _refuse_other_shape(msg, guide_site)

    def _guide_site(self, msg: Any) -> Any:
        return None if self.trace is None else self.trace.nodes.get(msg["name"])


def _warn_as_pyro(model_trace: Trace, guide_trace: Trace) -> None:
    """Issue the warnings of Pyro's ELBOs, but not for sites that the guide leaves to the prior, or computes."""
    model_trace, guide_trace = model_trace.copy(), guide_trace.copy()
    for site in latent_sites(model_trace):
        if site["name"] not in guide_trace and not site_is_subsample(site):
            model_trace.remove_node(site["name"])
    for site in all_sites(guide_trace):
        if site["is_observed"] and not site["infer"].get("is_auxiliary"):
            guide_trace.remove_node(site["name"])
    check_model_guide_match(model_trace, guide_trace)


def all_sites(trace: Trace) -> list[Any]:
    """The sample sites of a trace, latent and observed."""
    nodes: dict[str, Any] = dict(trace.nodes)
    return [site for site in nodes.values() if site["type"] == "sample"]


def latent_sites(trace: Trace) -> list[Any]:
    """The sample sites that are not observed."""
    return [site for site in all_sites(trace) if not site["is_observed"]]


def is_deterministic(site: Any) -> bool:
    """Whether a site is one of ``pyro.deterministic``, which counts as observed, but has no density."""
    return site["infer"].get("_deterministic", False)


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


def _refuse_observations(guide_trace: Trace) -> None:
    """Raise a ValueError for an observed site of a guide: its density, of the data say, would be subtracted."""
    for site in all_sites(guide_trace):
        name, law = site["name"], site["fn"]
        if not site["is_observed"] or (isinstance(law, dist.MaskedDistribution) and law._mask is False):
            continue  # sampled, or computed from samples
        if not site["infer"].get("is_auxiliary"):
            raise ValueError(
                f"guide observes {name!r}, so that its density would be subtracted from the bound; remove the site "
                "from the guide (a GuideMessenger is passed itself, not called by another guide), or mark a term of "
                "q by infer={'is_auxiliary': True}"
            )
        if site_is_factor(site) and "has_rsample" not in law.__dict__:
            raise ValueError(
                f"guide: factor {name!r} needs has_rsample; write pyro.factor({name!r}, ..., has_rsample=True) if it "
                "is a function of reparametrized samples, such as a log-determinant, or else has_rsample=False"
            )


SHAPES = (
    "a guide must open the model's plates, and one with parameters for each element, such as Pyro's automatic guides, "
    "fits only the batch of its first run: pass that batch in one call, or make a guide for this one"
)


def _refuse_other_plate(model_site: Any, guide_site: Any) -> None:
    """Raise a ValueError if a plate has another size in the guide, whose value would replace the model's."""
    law, rows, guide_rows = model_site["fn"], model_site["value"], guide_site["value"]
    expected = (law.subsample_size or law.size) if rows is None else len(rows)
    actual = len(guide_rows)
    if (expected, law.size) != (actual, guide_site["fn"].size):
        raise ValueError(
            f"guide opens plate {guide_site['name']!r} with {actual} of {guide_site['fn'].size} elements, but the "
            f"model with {expected} of {law.size}; {SHAPES}"
        )
    if rows is None or rows is guide_rows or not is_validation_enabled():  # comparing them synchronizes
        return
    if not torch.equal(torch.as_tensor(rows), torch.as_tensor(guide_rows).to(getattr(rows, "device", "cpu"))):
        raise ValueError(
            f"guide opens plate {guide_site['name']!r} with other elements than the subsample that the model gives; "
            "open it with the same one (for an automatic guide, by create_plates)"
        )


def _refuse_other_shape(model_site: Any, guide_site: Any) -> None:
    """Raise a ValueError if a site has another batch or event shape in the guide than in the model."""
    expected, actual = _shape(model_site), _shape(guide_site)
    if expected != actual:
        frames = [frame for frame in model_site["cond_indep_stack"] if frame.name != PARTICLES]
        plates = ", ".join(f"{frame.name!r} of size {frame.size}" for frame in frames) or "none"
        raise ValueError(
            f"guide samples {guide_site['name']!r} with batch shape {actual[0]} and event shape {actual[1]}, but in "
            f"the model they are {expected[0]} and {expected[1]}, with plates {plates}; {SHAPES}"
        )


def _shape(site: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The batch shape without leading axes of size 1, and the event shape."""
    batch = list(site["fn"].batch_shape)
    while batch and batch[0] == 1:
        del batch[0]
    return tuple(batch), tuple(site["fn"].event_shape)


def returned_values(traces: list[tuple[Trace, Trace]]) -> list[Any]:
    """What each run of the model has returned."""
    nodes: list[Any] = [trace.nodes["_RETURN"] for trace, _ in traces]
    return [node["value"] for node in nodes]
