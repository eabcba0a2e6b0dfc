"""Scoring held-out data: the entrance to every method (paper, section 4: perplexities)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from pyro.infer.autoguide import AutoDelta, AutoLaplaceApproximation
from pyro.poutine.util import prune_subsample_sites

from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference.estimates import Evaluation
from noisin_pyro.inference.importance import importance
from noisin_pyro.inference.particles import particle_filter
from noisin_pyro.inference.predictors import predict
from noisin_pyro.inference.sites import sampled_sites
from noisin_pyro.models import noise_off
from noisin_pyro.names import known

METHODS = {"mean": 0, "ensemble": 50, "importance": 100, "particle-filter": 400}
"""What can be asked for, and with how many samples by default."""

ISLANDS, THRESHOLD = 4, 0.5

_SPREAD = re.compile(r"(^|\.)spread_\d+\.gamma$")  # a γ with a prior is sampled, but does nothing where noise is off


@torch.no_grad()
def evaluate(
    model: Callable[..., Any],
    data: Sequences | Stream,
    method: str = "mean",
    num_samples: int | None = None,
    batch_size: int | None = None,
    log_probs: bool = False,
    guide: Callable[..., Any] | None = None,
    islands: int | None = None,
    threshold: float | None = None,
) -> Evaluation:
    """Score held-out data.

    - ``"mean"``: noise off, the underlying RNN. Exact for a deterministic model, a predictor of a noisy one.
    - ``"ensemble"``: the predictive probabilities of ``num_samples`` noisy runs, averaged step by step ("averaging at
      test time", section 3). γ and weights that have priors, and masks of dropout, are drawn anew in each call of the
      model.
    - ``"importance"``: log (1/S) Σ_s w_s of each whole sequence, of S samples from the guide, or from the prior where
      the guide samples nothing. A bound on log p(x), which one sample makes the ELBO; on a stream the samples and
      their weights are carried from window to window. A guide sees one window at a time, and the state before it: the
      shorter the windows, the less it knows of what follows, and the looser the bound.
    - ``"particle-filter"``: the bootstrap filter, an unbiased estimate of p(x). The reference.

    All are exact for a deterministic model.

    Args:
        model: a :class:`SequenceModel`, or any program with its arguments that returns ``emission`` and ``state``;
            for ``"importance"`` the view on whose sites the guide acts, for ``"particle-filter"`` a
            :class:`SequenceModel`, in any view but ``noise_off``.
        data: padded sequences, or a stream (its states are carried from window to window).
        method: which number.
        num_samples: noisy runs, 50 by default; samples of each sequence, 100 by default; its particles, 400 by default.
            Not for ``"mean"``.
        batch_size: sequences a call; only for :class:`Sequences` (default: all in one). A guide with parameters for
            each sequence needs all in one.
        log_probs: whether to keep the log-probability of every step: log p̂(x_{1:t}) − log p̂(x_{1:t-1}) for
            ``"particle-filter"`` and for ``"importance"`` without a guide (one that has seen all of x gives none).
        guide: a Pyro guide over some of the model's sites, called with the model's arguments; for ``"importance"``.
        islands: independent filters, which share the particles equally, 4 by default: their differences give the Monte
            Carlo error, of one alone there is none. For ``"particle-filter"``.
        threshold: the effective sample size, as a share of an island's particles, below which they are resampled:
            0.5 by default; 0 is never. For ``"particle-filter"``.

    Raises:
        ValueError: for an unknown method, options that it cannot use, a model with random weights or γ where the
            number is of one network (all but ``"ensemble"``), or one that the method cannot run.
    """
    num_samples = _checked(known("method", method, METHODS), num_samples, guide, log_probs, islands, threshold)
    if method == "importance":
        random = bool(_latents(model, data, batch_size))
        return importance(model, guide, data, num_samples, random, batch_size, log_probs)
    if method == "particle-filter":
        islands = _islands(ISLANDS if islands is None else islands, num_samples)
        share = THRESHOLD if threshold is None else threshold
        return particle_filter(model, data, num_samples, islands, share, batch_size, log_probs)
    scored = model
    if method == "mean":
        scored = noise_off(model)
        latents = _latents(scored, data, batch_size)
        if not all(map(_SPREAD.search, latents)):
            raise ValueError(f"method='mean' is of one network, but {latents[0]!r} is sampled; condition on it first")
    random = bool(_latents(model, data, batch_size))
    kind = "predictor" if random else "exact"
    return predict(method, scored, data, num_samples if random else 0, kind, batch_size, log_probs)


def _checked(
    method: str, num_samples: int | None, guide: object, log_probs: bool, islands: int | None, threshold: float | None
) -> int:
    """The number of samples, if every option applies."""
    if num_samples is not None and method == "mean":
        raise ValueError(f"num_samples={num_samples} has no effect on method='mean', which draws nothing; drop it")
    for name, value, only in (
        ("guide", guide, "importance"),
        ("islands", islands, "particle-filter"),
        ("threshold", threshold, "particle-filter"),
    ):
        if value is not None and method != only:
            raise ValueError(f"{name} has no effect on method={method!r}; drop it, or take method={only!r}")
    if isinstance(guide, (AutoDelta, AutoLaplaceApproximation)):
        kind = type(guide).__name__
        raise ValueError(
            f"guide: {kind} is a point without a density, so that its number would be no bound; take a guide with one "
            "(of AutoLaplaceApproximation, what its laplace_approximation() returns)"
        )
    if guide is not None and log_probs:
        raise ValueError(
            "log_probs (per token): a guide has seen all of x, so its weights give no step alone; leave one of the two "
            "out, or take method='particle-filter'"
        )
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be from 0 (never resample) to 1, got {threshold!r}")
    least, wanted = {"ensemble": (2, "an ensemble and its error")}.get(method, (1, method))
    num_samples = METHODS[method] if num_samples is None else num_samples
    if method != "mean" and (not isinstance(num_samples, int) or num_samples < least):
        raise ValueError(f"num_samples must be at least {least} for {wanted}, got {num_samples!r}")
    return num_samples


def _islands(islands: int, num_samples: int) -> int:
    if not isinstance(islands, int) or islands < 1 or num_samples % islands:
        raise ValueError(
            f"num_samples must be a multiple of the islands, which share the particles equally, got {num_samples} and "
            f"{islands!r}"
        )
    return islands


def _latents(model: Callable[..., Any], data: Sequences | Stream, batch_size: int | None) -> list[str]:
    """What the model's program samples beside the data."""
    batch = next(iter(data.batches(batch_size)))
    trace = poutine.trace(model).get_trace(batch.inputs, batch.targets, lengths=batch.lengths)
    return [site["name"] for site in sampled_sites(prune_subsample_sites(trace))]
