"""The result of an evaluation: a number, its kind and its errors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from noisin_pyro.data import Batch, Sequences, Stream


@dataclass(frozen=True)
class Evaluation:
    """A score of held-out data, and what kind of number it is.

    Attributes:
        method: ``"mean"``, ``"ensemble"``, ``"importance"`` or ``"particle-filter"``.
        kind: ``"exact"`` (the log-likelihood of a deterministic model), ``"bound"`` (its expectation is at most
            log p(x); with one sample it is the ELBO), ``"estimate"`` (of log p(x), from an unbiased estimate of p(x))
            or ``"predictor"`` (a normalized predictor: neither a bound nor an estimate of the noisy model's log p(x)).
        nats_per_step: negative log-probability per real step; lower is better.
        monte_carlo_error: its standard error over the noise; 0 if nothing is sampled, NaN for one sample. Found by the
            jackknife: over the noisy runs, or for each sequence over its samples or islands. It says how far another
            run would be from this one, not how far a bound is from log p(x).
        standard_error: its standard error over sequences. A text is one sequence: its error is over blocks of 500
            tokens, whatever columns and windows it is read in.
        num_steps: number of real steps scored.
        num_samples: noisy runs, samples or particles (of all islands); 0 if nothing is sampled.
        pareto_k: ``"importance"`` only: the largest Pareto k̂ of a sequence's weights. Above 0.7 the weights are too
            uneven for the number to be near log p(x), or for its error to be trusted. Infinite if too few weights are
            in the tail, -infinite if all weights are equal.
        unreliable: the fraction of sequences with k̂ above 0.7.
        effective_samples: effective sample size (Σw)²/Σw², averaged over sequences; for ``"particle-filter"`` also over
            steps, before resampling, and summed over islands.
        resamplings: ``"particle-filter"`` only: average number of times that a sequence's particles were resampled.
        log_probs: if requested, the log-probability of every step in float64: ``(num_steps,)`` in the order of the text
            for a stream, ``(N, T)`` with 0 beyond each length for sequences.
        totals: the log-probability of each sequence, or of each block of a text, ``(N,)`` in float64, and
        lengths: its real steps, ``(N,)``; both are None in a result read from a file.
        steps: for a text, the contribution of each token to the log-probability, ``(num_steps,)`` in float64. The
            weights of ``"importance"`` are those of whole windows: there the tokens of a window share its increment
            equally.
    """

    method: str
    kind: str
    nats_per_step: float
    monte_carlo_error: float
    standard_error: float
    num_steps: int
    num_samples: int
    pareto_k: float | None = None
    unreliable: float | None = None
    effective_samples: float | None = None
    resamplings: float | None = None
    log_probs: Tensor | None = field(default=None, repr=False, compare=False)
    totals: Tensor | None = field(default=None, repr=False, compare=False)
    lengths: Tensor | None = field(default=None, repr=False, compare=False)
    steps: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def perplexity(self) -> float:
        """exp(nats_per_step); infinite if that overflows a float."""
        return perplexity(self.nats_per_step)

    def difference(self, other: Evaluation) -> Difference:
        """This result minus another model's on the same sequences.

        A sequence that is hard for one model is hard for the other, so the paired difference has a far smaller error
        than either number: overlapping standard errors say little.

        Raises:
            ValueError: different sequences, or kinds that cannot be compared: a bound may be below an estimate because
                it is a bound.
        """
        if {self.kind, other.kind} not in COMPARABLE and self.kind != other.kind:
            raise ValueError(
                f"the two results are of kinds {self.kind!r} and {other.kind!r}, so their difference is not that of "
                "the models; evaluate both by one method"
            )
        if self.totals is None or other.totals is None or self.lengths is None or other.lengths is None:
            raise ValueError("a result read from a file has no sequences to compare; evaluate the model again")
        if not torch.equal(self.lengths, other.lengths):
            raise ValueError(
                f"the results are of different sequences ({len(self.lengths)} and {len(other.lengths)}, with "
                f"{self.num_steps} and {other.num_steps} steps); evaluate both on the same data, by one method"
            )
        nats, error = _per_step(self.totals - other.totals, self.lengths)
        return Difference(nats, error, math.hypot(self.monte_carlo_error, other.monte_carlo_error))


BLOCK = 500
"""Tokens of a text that count as one sequence in its standard error."""

COMPARABLE = ({"exact", "estimate"}, {"exact", "predictor"})
"""Different kinds that can be compared: both are log-likelihoods, or both are predictors."""


@dataclass(frozen=True)
class Difference:
    """The first of two results on the same sequences minus the second.

    Attributes:
        nats_per_step: negative if the first model is better.
        standard_error: paired, over sequences.
        monte_carlo_error: over the noise, which is drawn independently for each result.
    """

    nats_per_step: float
    standard_error: float
    monte_carlo_error: float


def perplexity(nats_per_step: float) -> float:
    """exp(nats_per_step); infinite if that overflows a float."""
    return math.exp(nats_per_step) if nats_per_step < 709.0 else math.inf


def summary(
    method: str, totals: Tensor, lengths: Tensor, kind: str, monte_carlo_error: float, num_samples: int, **more: object
) -> Evaluation:
    """The result for sequences with log-probabilities ``totals`` ``(N,)`` and ``lengths`` ``(N,)``.

    ``monte_carlo_error`` is the error of their sum; ``more`` are other fields of :class:`Evaluation`.
    """
    totals, lengths = totals.double().cpu(), lengths.cpu()
    steps = int(lengths.sum())
    nats, error = _per_step(totals, lengths)
    more |= {"totals": totals, "lengths": lengths}
    return Evaluation(method, kind, nats, monte_carlo_error / steps, error, steps, num_samples, **more)  # type: ignore[arg-type]


def summary_of_text(
    method: str, steps: Tensor, kind: str, monte_carlo_error: float, num_samples: int, **more: object
) -> Evaluation:
    """The number of a text whose tokens add ``steps`` ``(num_steps,)`` to its log-probability, in its order.

    A text is one sequence. Its standard error takes blocks of 500 tokens for independent, however it was read, so that
    two models, or two ways of reading, are compared block by block.
    """
    blocks = steps.double().cpu().split(BLOCK)
    totals, lengths = torch.stack([block.sum() for block in blocks]), torch.tensor([len(block) for block in blocks])
    more |= {"steps": steps.double().cpu()}
    return summary(method, totals, lengths, kind, monte_carlo_error, num_samples, **more)


def _per_step(totals: Tensor, lengths: Tensor) -> tuple[float, float]:
    """Total nats over total steps, and the standard error of this ratio over sequences."""
    steps, count = int(lengths.sum()), int((lengths > 0).sum())
    nats = float(-totals.sum() / steps)
    residuals = -totals - nats * lengths.double()
    error = math.sqrt(float(residuals.square().sum()) * count / (count - 1)) / steps if count > 1 else math.nan
    return nats, error


def leave_one_out(log_w: Tensor) -> Tensor:
    """log (1/(S-1)) Σ_{r≠s} w_r for each s: ``(S, N)`` from ``(S, N)``; NaN for S = 1."""
    num_samples = len(log_w)
    if num_samples == 1:
        return torch.full_like(log_w, math.nan)
    total, largest = log_w.logsumexp(0), log_w.argmax(0, keepdim=True)
    others = total + torch.log1p(-(log_w - total).exp())
    # the largest weight may be nearly all of the sum, and subtracting it would cancel: sum the others directly
    rest = log_w.scatter(0, largest, -math.inf).logsumexp(0, keepdim=True)
    return others.scatter(0, largest, rest) - math.log(num_samples - 1)


def jackknife_variance(left_out: Tensor) -> Tensor:
    """The jackknife variance of a statistic, from its values with each of S samples left out, ``(S, ...)``."""
    return (len(left_out) - 1) * left_out.var(0, correction=0)


def by_step(running: Tensor) -> Tensor:
    """log p̂(x_t | x_{<t}) from log p̂(x_{1:t}), both ``(B, T)``."""
    return running.diff(dim=-1, prepend=torch.zeros_like(running[:, :1]))


def readings(data: Sequences | Stream, batch_size: int | None) -> Iterator[list[Batch]]:
    """The batches that share carried states: each batch of sequences by itself, all windows of a stream together."""
    if isinstance(data, Stream):
        yield list(data.batches(batch_size))
    else:
        yield from ([batch] for batch in data.batches(batch_size))


def row_lengths(*windows: Batch) -> Tensor:
    """Number of real steps of each row in all windows together, ``(B,)``, on the CPU."""
    rows, steps = windows[0].targets.shape[0], [batch.targets.shape[1] for batch in windows]
    full = torch.tensor(steps).unsqueeze(1).expand(-1, rows)
    given = [row if b.lengths is None else b.lengths.cpu() for row, b in zip(full, windows, strict=True)]
    return torch.stack(given).sum(0)


def in_reading_order(rows: list[Tensor], data: Sequences | Stream) -> Tensor:
    """Steps of whole sequences as ``(N, T)``, those of whole columns of a stream as ``(num_steps,)``."""
    return pad_sequence(rows, batch_first=True) if isinstance(data, Sequences) else torch.cat(rows)
