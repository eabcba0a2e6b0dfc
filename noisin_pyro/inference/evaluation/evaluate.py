"""Scoring held-out data by one of four methods (paper, section 4: perplexities)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta, AutoLaplaceApproximation
from pyro.poutine.util import prune_subsample_sites

from noisin_pyro._lookup import known
from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference.evaluation.filtering import particle_filter
from noisin_pyro.inference.evaluation.importance import importance
from noisin_pyro.inference.evaluation.predictive import predict
from noisin_pyro.inference.evaluation.result import Evaluation
from noisin_pyro.inference.traces import latent_sites
from noisin_pyro.models import SpreadPrior, noise_off

METHODS = {"mean": 0, "ensemble": 50, "importance": 100, "particle-filter": 400}
"""The methods of ``evaluate``, and the number of samples that each takes by default."""

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
) -> Evaluation:
    """Score held-out data.

    - ``"mean"``: noise off, the underlying RNN. Exact for a deterministic model, a predictor for a noisy one.
    - ``"ensemble"``: the predictive probabilities of ``num_samples`` noisy runs, averaged step by step ("averaging at
      test time", section 3). Weights and γ with priors, and dropout masks, are drawn anew in each call of the model.
    - ``"importance"``: log (1/S) Σ_s w_s of each whole sequence, with S samples from the guide, or from the prior where
      the guide samples nothing. A bound on log p(x); with one sample it is the ELBO. On a stream the samples and their
      weights are carried from window to window. A guide sees one window at a time, and the state before it: shorter
      windows tell it less of what follows, and the bound is looser.
    - ``"particle-filter"``: the bootstrap filter, an unbiased estimate of p(x). The reference.

    All are exact for a deterministic model.

    Args:
        model: a :class:`SequenceModel`, or any program with its arguments that returns ``emission`` and ``state``; for
            a guide of your own, the view on whose sites it acts. ``"particle-filter"`` needs a :class:`SequenceModel`,
            in any view but ``noise_off``.
        data: padded sequences, or a stream (its states are carried from window to window).
        method: one of these; default: ``"importance"`` if a guide is given, else ``"mean"``.
        num_samples: number of noisy runs (default: 50), of samples of each sequence (default: 100), or of particles of
            each sequence (default: 400). Not for ``"mean"``.
        batch_size: number of sequences per call; only for :class:`Sequences` (default: all). A guide with parameters
            for each sequence needs all of them in one call.
        log_probs: whether to keep the log-probability of every step: log p̂(x_{1:t}) − log p̂(x_{1:t-1}) for
            ``"particle-filter"`` and for ``"importance"`` without a guide (a guide has seen all of x).
        guide: a guide of :func:`noisin_pyro.guides.get`, or a Pyro guide over some of the model's sites, called with
            the model's arguments; for ``"importance"``.
        islands: number of independent filters that share the particles equally (default: 4). Their differences give the
            Monte Carlo error, which one alone does not have. For ``"particle-filter"``.
        threshold: resample the particles of an island when their effective sample size is below this fraction of their
            number (default: 0.5); 0 never resamples. For ``"particle-filter"``.

    Raises:
        ValueError: an unknown method, options that do not apply to it, a model with random weights or γ (except for
            ``"ensemble"``), or a model that the method cannot run.
    """
    if method is None:
        method = "mean" if guide is None else "importance"
    num_samples = _checked(known("method", method, METHODS), num_samples, guide, log_probs, islands, threshold)
    if method == "importance":
        random = bool(_latents(model, data, batch_size))
        return importance(model, guide, data, num_samples, random, batch_size, log_probs)
    if method == "particle-filter":
        islands = _islands(ISLANDS if islands is None else islands, num_samples)
        threshold = THRESHOLD if threshold is None else threshold
        return particle_filter(model, data, num_samples, islands, threshold, batch_size, log_probs)
    scored = model
    if method == "mean":
        scored = noise_off(model)
        # a γ with a prior is sampled, but has no effect where noise is off
        latents = [site for site in _latents(scored, data, batch_size) if not isinstance(site["fn"], SpreadPrior)]
        if latents:
            name = latents[0]["name"]
            raise ValueError(f"method='mean' is of one network, but {name!r} is sampled; condition on it first")
    random = bool(_latents(model, data, batch_size))
    kind = "predictor" if random else "exact"
    return predict(method, scored, data, num_samples if random else 0, kind, batch_size, log_probs)


def _checked(
    method: str, num_samples: int | None, guide: object, log_probs: bool, islands: int | None, threshold: float | None
) -> int:
    """The number of samples.

    Raises:
        ValueError: an option that is out of range or does not apply to the method.
    """
    if num_samples is not None and method == "mean":
        raise ValueError(f"num_samples={num_samples} has no effect on method='mean', which draws nothing; drop it")
    for name, value, only in (
        ("guide", guide, "importance"),
        ("islands", islands, "particle-filter"),
        ("threshold", threshold, "particle-filter"),
    ):
        if value is not None and method != only:
            raise ValueError(f"{name} has no effect on method={method!r}; drop it, or use method={only!r}")
    if isinstance(guide, (AutoDelta, AutoLaplaceApproximation)):
        kind = type(guide).__name__
        raise ValueError(
            f"guide: {kind} is a point without a density, so its number would not be a bound; use a guide with a "
            "density (for AutoLaplaceApproximation, what its laplace_approximation() returns)"
        )
    if guide is not None and log_probs:
        raise ValueError(
            "log_probs (per token): a guide has seen all of x, so its weights have no increment for a step; leave out "
            "one of the two, or use method='particle-filter'"
        )
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be from 0 (never resample) to 1, got {threshold!r}")
    least, purpose = {"ensemble": (2, "an ensemble and its error")}.get(method, (1, method))
    num_samples = METHODS[method] if num_samples is None else num_samples
    if method != "mean" and (not isinstance(num_samples, int) or num_samples < least):
        raise ValueError(f"num_samples must be at least {least} for {purpose}, got {num_samples!r}")
    return num_samples


def _islands(islands: int, num_samples: int) -> int:
    if not isinstance(islands, int) or islands < 1 or num_samples % islands:
        raise ValueError(
            f"num_samples must be a multiple of islands, which share the particles equally, got {num_samples} and "
            f"{islands!r}"
        )
    return islands


def _latents(model: Callable[..., Any], data: Sequences | Stream, batch_size: int | None) -> list[Any]:
    """The latent sites of the model's program."""
    batch = next(iter(data.batches(batch_size)))
    trace = poutine.trace(model).get_trace(batch.inputs, batch.targets, lengths=batch.lengths)
    return latent_sites(prune_subsample_sites(trace))
