"""Evaluation of a model on held-out data by one of four methods (paper, section 4: perplexities)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.poutine import Trace
from pyro.poutine.block_messenger import BlockMessenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.util import prune_subsample_sites

from noisin_pyro._lookup import integer, known
from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference.arguments import check_data, check_programs
from noisin_pyro.inference.evaluation.filtering import particle_filter
from noisin_pyro.inference.evaluation.importance import importance
from noisin_pyro.inference.evaluation.predictive import predict
from noisin_pyro.inference.evaluation.result import Evaluation
from noisin_pyro.inference.filtering.resampling import checked_threshold
from noisin_pyro.inference.filtering.support import own_forward
from noisin_pyro.inference.generation import seeded
from noisin_pyro.inference.guides.view import is_point_estimate, program_of
from noisin_pyro.inference.observed import is_latent, refuse_given_targets, require_same_emission
from noisin_pyro.inference.series_of_model import require_format_of
from noisin_pyro.inference.traces import all_sites, latent_sites
from noisin_pyro.models import Mask, SequenceModel, SpreadPrior, noise_off, site_info
from noisin_pyro.models.views import handlers_around

METHODS = {"mean": 0, "ensemble": 50, "importance": 100, "particle-filter": 400}
"""The methods of ``evaluate`` and their default numbers of samples."""

ISLANDS, THRESHOLD = 4, 0.5


@torch.no_grad()
def evaluate(
    model: Callable[..., Any],
    data: Sequences | Stream,
    method: str | None = None,
    num_samples: int | None = None,
    batch_size: int | None = None,
    log_probs: bool = False,
    guide: Callable[..., Any] | None = None,
    islands: int | None = None,
    threshold: float | None = None,
    seed: int | None = None,
) -> Evaluation:
    """Score a model on held-out data.

    - ``"mean"``: the noise is off. Exact for a deterministic model, a predictor for a noisy one.
    - ``"ensemble"``: the predictive probabilities of ``num_samples`` noisy runs, averaged step by step ("averaging at
      test time", section 3). Weights and γ with priors, and dropout masks, are sampled in each call of the model.
    - ``"importance"``: log (1/S) Σ_s w_s of each whole sequence, with S samples from the guide, or from the prior for
      sites that the guide does not sample. A bound on log p(x); with one sample it is the ELBO. On a stream the samples
      and their weights are carried from window to window. A guide conditions on one window at a time and the state
      before it, so shorter windows give a looser bound.
    - ``"particle-filter"``: an unbiased estimate of p(x), by particles whose noise is drawn from its prior, or from a
      named guide as the proposal. The history of a series weights the noise, and is not scored; the other methods read
      it as inputs alone.

    All methods are exact for a deterministic model.

    Args:
        model: a :class:`SequenceModel`, or any program with the same arguments that returns ``emission`` and ``state``.
            With a custom guide, the view whose sites the guide samples. ``"particle-filter"`` needs a
            :class:`SequenceModel`, in any view but ``noise_off``.
        data: padded sequences, or a stream (its states are carried from window to window).
        method: one of the above (default: ``"importance"`` if a guide is given, else ``"mean"``).
        num_samples: number of noisy runs for ``"ensemble"`` (default: 50), samples per sequence for ``"importance"``
            (default: 100), or particles per sequence for ``"particle-filter"`` (default: 400).
        batch_size: number of sequences per call; only for :class:`Sequences` (default: all). A guide with separate
            parameters for each sequence needs all of them in one call.
        log_probs: whether to return the log-probability of every step; for ``"particle-filter"``, and for
            ``"importance"`` without a guide, log p̂(x_{1:t}) − log p̂(x_{1:t-1}). Not for ``"importance"`` with a guide,
            which conditions on all of x.
        guide: a guide from :func:`noisin_pyro.inference.guides.get`, or for ``"importance"`` also a Pyro guide over
            some of the model's sites, called with the model's arguments. For ``"importance"``, and for
            ``"particle-filter"`` one of ``"mean-field"``, ``"filtering"`` and ``"smoothing"``.
        islands: number of independent filters among which the particles are divided equally (default: 4). The Monte
            Carlo error is computed from their differences; with one island it is NaN. For ``"particle-filter"``.
        threshold: the particles of an island are resampled if their effective sample size is below this fraction of
            their number (default: 0.5); 0 never resamples, which is best for an accurate smoothing guide. For
            ``"particle-filter"``.
        seed: seed of this score, which then leaves the state of torch's generators unchanged. By default torch's
            generators are used.

    Raises:
        ValueError: an unknown method, options that do not apply to it, a model that samples weights or γ (except for
            ``"ensemble"``), a model in ``poutine.block``, or one that the method does not support.
    """
    if method is None:
        method = "mean" if guide is None else "importance"
    num_samples = _checked(known("method", method, METHODS), num_samples, guide, log_probs, islands, threshold)
    check_data(data)
    check_programs(data, model, guide, "state")
    _refuse_handlers(model, method)
    refuse_given_targets(model)
    require_format_of(program_of(model), data)
    with seeded(seed, next(iter(data.batches())).targets.device):
        return _score(model, data, method, num_samples, batch_size, log_probs, guide, islands, threshold)


def _score(
    model: Callable[..., Any],
    data: Sequences | Stream,
    method: str,
    num_samples: int,
    batch_size: int | None,
    log_probs: bool,
    guide: Callable[..., Any] | None,
    islands: int | None,
    threshold: float | None,
) -> Evaluation:
    if method == "importance":
        trace = _trace(model, data, batch_size)
        for name in _conditioned_noise(trace):
            raise ValueError(
                f"method='importance' samples the noise, but {name!r} is conditioned on, so its density would be in "
                "the score; drop the condition, or use method='ensemble'"
            )
        if all(is_latent(site) for site in all_sites(trace)):
            raise ValueError(
                "method='importance' weights samples by what the model observes, but it observes no site; observe the "
                "targets, without poutine.uncondition"
            )
        if guide is not None or latent_sites(trace):
            return importance(model, guide, data, num_samples, batch_size, log_probs)
    if method == "particle-filter":
        islands = _islands(ISLANDS if islands is None else islands, num_samples)
        threshold = THRESHOLD if threshold is None else threshold
        return particle_filter(model, data, num_samples, islands, threshold, batch_size, log_probs, guide)
    viewed = _noise_off(model, data, batch_size) if method == "mean" else model
    random = bool(latent_sites(_trace(model, data, batch_size)))
    kind = "predictor" if random else "exact"
    return predict(method, viewed, data, num_samples if random else 0, kind, batch_size, log_probs)


def _noise_off(model: Callable[..., Any], data: Sequences | Stream, batch_size: int | None) -> Callable[..., Any]:
    """The model without noise.

    Raises:
        ValueError: noise that is conditioned on, or sampled weights.
    """
    viewed = noise_off(model)
    trace = _trace(viewed, data, batch_size)
    for name in _conditioned_noise(_trace(model, data, batch_size)):
        if name not in trace:
            raise ValueError(
                f"method='mean' turns the noise off, but {name!r} is conditioned on; drop the condition, or use "
                "method='ensemble'"
            )
    for site in latent_sites(trace):
        if not isinstance(site["fn"], SpreadPrior):  # a γ that is sampled has no effect where noise is off
            raise ValueError(
                f"method='mean' needs fixed weights, but {site['name']!r} is sampled; condition on it first"
            )
    return viewed


def _checked(
    method: str, num_samples: int | None, guide: object, log_probs: bool, islands: int | None, threshold: float | None
) -> int:
    """Check the options and return the number of samples.

    Raises:
        ValueError: an option that is out of range or does not apply to the method.
    """
    if num_samples is not None and method == "mean":
        raise ValueError(f"num_samples={num_samples} has no effect on method='mean', which does not sample; drop it")
    for name, value, methods in (
        ("guide", guide, ("importance", "particle-filter")),
        ("islands", islands, ("particle-filter",)),
        ("threshold", threshold, ("particle-filter",)),
    ):
        if value is not None and method not in methods:
            use = " or ".join(map(repr, methods))
            raise ValueError(f"{name} has no effect on method={method!r}; drop it, or use method={use}")
    if is_point_estimate(guide):
        kind = type(guide).__name__
        raise ValueError(
            f"guide: {kind} is a point estimate without a density, so the result would not be a bound; use a guide "
            "with a density (for AutoLaplaceApproximation, the guide that laplace_approximation() returns)"
        )
    if guide is not None and log_probs and method == "importance":
        raise ValueError(
            "log_probs: a guide conditions on all of x, so its weights have no increments for single "
            "steps; omit the guide or log_probs, or use method='particle-filter'"
        )
    if threshold is not None:
        checked_threshold(threshold)
    minimum, purpose = {"ensemble": (2, "an ensemble and its error")}.get(method, (1, method))
    num_samples = METHODS[method] if num_samples is None else num_samples
    return num_samples if method == "mean" else integer(f"num_samples for {purpose}", num_samples, minimum)


def _islands(islands: int, num_samples: int) -> int:
    islands = integer("islands", islands)
    if num_samples % islands:
        raise ValueError(
            f"num_samples must be a multiple of {islands}, since {islands} islands divide the particles equally, got "
            f"{num_samples}"
        )
    return islands


def _trace(model: Callable[..., Any], data: Sequences | Stream, batch_size: int | None) -> Trace:
    """A run of the model on the first batch."""
    batch = next(iter(data.batches(batch_size)))
    trace = prune_subsample_sites(poutine.trace(model).get_trace(batch.inputs, batch.targets, **batch.keywords))
    program = program_of(model)
    if not isinstance(program, SequenceModel) or own_forward(program) is not None:
        require_same_emission(trace, batch)
    return trace


def _refuse_handlers(model: Callable[..., Any], method: str) -> None:
    for handler in handlers_around(model):
        if isinstance(handler, BlockMessenger):
            raise ValueError(
                "model is in poutine.block, which hides sites, so that a random model would count as exact; pass the "
                "model without it"
            )
        if isinstance(handler, ReplayMessenger) and method == "importance":
            raise ValueError(
                "method='importance' samples the noise, but poutine.replay gives values, so the result would not be a "
                "bound; pass the model itself, and what gives the values as the guide, or use method='ensemble'"
            )


def _conditioned_noise(trace: Trace) -> list[str]:
    """The names of noise and dropout masks that are observed."""
    sites = [site for site in all_sites(trace) if site["is_observed"] and site_info(site).computed is None]
    return [site["name"] for site in sites if site_info(site).family is not None or isinstance(site["fn"], Mask)]
