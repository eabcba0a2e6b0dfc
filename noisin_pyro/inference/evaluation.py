"""Held-out numbers that say what they are (paper, section 4: perplexities)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from pyro import poutine
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from noisin_pyro.data import Batch, Sequences, Stream
from noisin_pyro.inference.sites import sampled_sites
from noisin_pyro.models import noise_off, real_steps

METHODS = ("mean", "ensemble")
_SPREAD = re.compile(r"(^|\.)spread_\d+\.gamma$")  # a γ with a prior is sampled, but does nothing where noise is off


@dataclass(frozen=True)
class Evaluation:
    """One number, and what it is.

    Attributes:
        method: ``"mean"`` or ``"ensemble"``.
        kind: ``"exact"`` (the log-likelihood of a deterministic model) or ``"predictor"`` (a normalised predictor:
            neither a bound nor an estimate of the noisy model's log p(x)).
        nats_per_step: the negative log-probability per real step; lower is better.
        monte_carlo_error: its standard error over the noise (jackknife over the samples); 0 where nothing is sampled.
        standard_error: its standard error over sequences, a sequence being what one call scores (a row of a batch; in
            a stream, one window of one column).
        num_steps: real steps scored.
        num_samples: noisy runs averaged; 0 for none.
        log_probs: the log-probability of every step in float64, if asked for: of a stream ``(num_steps,)`` in the order
            of its text, of sequences ``(N, T)`` with 0 beyond each one's length.
    """

    method: str
    kind: str
    nats_per_step: float
    monte_carlo_error: float
    standard_error: float
    num_steps: int
    num_samples: int
    log_probs: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def perplexity(self) -> float:
        """exp(nats_per_step); infinite where that is too large for a float."""
        return math.exp(self.nats_per_step) if self.nats_per_step < 709.0 else math.inf


@torch.no_grad()
def evaluate(
    model: Callable[..., Any],
    data: Sequences | Stream,
    method: str = "mean",
    num_samples: int | None = None,
    batch_size: int | None = None,
    log_probs: bool = False,
) -> Evaluation:
    """Score held-out data.

    - ``"mean"``: noise off, the underlying RNN. Exact for a deterministic model, a predictor of a noisy one.
    - ``"ensemble"``: the predictive probabilities of ``num_samples`` noisy runs, averaged step by step ("averaging at
      test time", section 3). γ and weights that have priors are drawn anew in each call of the model.

    Args:
        model: a :class:`SequenceModel`, or any program with its arguments that returns ``emission`` and ``state``.
        data: padded sequences, or a stream (its states are carried from window to window).
        method: which number.
        num_samples: noisy runs, 50 by default; only for ``"ensemble"``.
        batch_size: sequences a call; only for :class:`Sequences` (default: all in one).
        log_probs: whether to keep the log-probability of every step.

    Raises:
        ValueError: for an unknown method, options that it cannot use, or ``"mean"`` of a model with random weights.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if method == "mean":
        if num_samples is not None:
            raise ValueError(f"num_samples={num_samples} has no effect on method='mean', which draws nothing; drop it")
        latents = _latents(noise_off(model), data, batch_size)
        if not all(map(_SPREAD.search, latents)):
            raise ValueError(f"method='mean' is of one network, but {latents[0]!r} is sampled; condition on it first")
        scored, num_samples = noise_off(model), 0
    else:
        scored, num_samples = model, 50 if num_samples is None else num_samples
        if not isinstance(num_samples, int) or num_samples < 2:
            raise ValueError(f"num_samples must be at least 2 for an ensemble and its error, got {num_samples}")
    random = bool(_latents(model, data, batch_size))
    scores, lengths = _score(scored, data, batch_size)
    error = torch.zeros(())
    if random and num_samples:
        others = [_score(scored, data, batch_size)[0] for _ in range(num_samples - 1)]
        scores, error = _average(torch.stack([scores, *others]))
    kind = "predictor" if random else "exact"
    found = _summary(method, kind, scores, error, lengths, num_samples if random else 0)
    return replace(found, log_probs=_in_reading_order(scores, lengths, data)) if log_probs else found


def _score(model: Callable[..., Any], data: Sequences | Stream, batch_size: int | None) -> tuple[Tensor, Tensor]:
    """log p(x_t | ·) of every real step in one run, ``(N,)``, and how many steps each sequence has."""
    scores, lengths, state = [], [], None
    for batch in data.batches(batch_size):
        out = _run(model, batch, state if batch.carried else None)
        state = out.state
        log_prob = out.emission.log_prob(batch.targets)
        if batch.lengths is None:
            scores.append(log_prob.flatten())
            lengths.append(torch.full((log_prob.shape[0],), log_prob.shape[1]))
        else:
            scores.append(log_prob[real_steps(batch.lengths, log_prob.shape[1])])
            lengths.append(batch.lengths.cpu())
    return torch.cat(scores).double(), torch.cat(lengths)


def _run(model: Callable[..., Any], batch: Batch, state: Any) -> Any:
    with poutine.block():
        return model(batch.inputs, batch.targets, state=state, lengths=batch.lengths)


def _latents(model: Callable[..., Any], data: Sequences | Stream, batch_size: int | None) -> list[str]:
    """What the model's program samples beside the data."""
    batch = next(iter(data.batches(batch_size)))
    trace = poutine.trace(model).get_trace(batch.inputs, batch.targets, lengths=batch.lengths)
    return [site["name"] for site in sampled_sites(prune_subsample_sites(trace))]


def _in_reading_order(scores: Tensor, lengths: Tensor, data: Sequences | Stream) -> Tensor:
    """From a call's rows after those of the call before to whole columns, or whole sequences."""
    pieces = scores.split(lengths.tolist())
    if isinstance(data, Sequences):
        return pad_sequence(list(pieces), batch_first=True)
    return torch.cat([piece for column in range(data.batch_size) for piece in pieces[column :: data.batch_size]])


def _average(runs: Tensor) -> tuple[Tensor, Tensor]:
    """Average S runs' probabilities ``(S, N)`` step by step, and the jackknife error of a step's mean log."""
    num_samples = len(runs)
    total = runs.logsumexp(0)
    others = (torch.cat([runs[:s], runs[s + 1 :]]).logsumexp(0) for s in range(num_samples))
    left_out = torch.stack([(each - math.log(num_samples - 1)).sum() for each in others])
    error = ((num_samples - 1) * left_out.var(correction=0)).sqrt() / runs.shape[1]
    return total - math.log(num_samples), error


def _summary(
    method: str, kind: str, scores: Tensor, monte_carlo_error: Tensor, lengths: Tensor, num_samples: int
) -> Evaluation:
    steps = int(lengths.sum())
    nats = -scores.sum() / steps
    rows = torch.stack([piece.sum() for piece in scores.cpu().split(lengths.tolist())])
    residuals = -rows - nats.cpu() * lengths.double()  # of the ratio estimator: total nats over total steps
    count = int((lengths > 0).sum())
    error = math.sqrt(float(residuals.square().sum()) * count / (count - 1)) / steps if count > 1 else math.nan
    return Evaluation(method, kind, float(nats), float(monte_carlo_error), error, steps, num_samples)
