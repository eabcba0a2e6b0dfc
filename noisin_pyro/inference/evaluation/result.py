"""Held-out numbers that say what they are, and their errors."""

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
    """One number, and what it is.

    Attributes:
        method: ``"mean"``, ``"ensemble"``, ``"importance"`` or ``"particle-filter"``.
        kind: ``"exact"`` (the log-likelihood of a deterministic model), ``"bound"`` (its expectation is at most
            log p(x); with one sample it is the ELBO), ``"estimate"`` (of log p(x), by an unbiased one of p(x)) or
            ``"predictor"`` (a normalised predictor: neither a bound nor an estimate of the noisy model's log p(x)).
        nats_per_step: the negative log-probability per real step; lower is better.
        monte_carlo_error: its standard error over the noise; 0 where nothing is sampled, not a number for one sample.
            By the jackknife: over the noisy runs, or for each sequence over its samples, or its islands. It tells how
            far another run would be from this one, not how far a bound is from log p(x).
        standard_error: its standard error over sequences. A sequence is for ``"mean"`` and ``"ensemble"`` what one call
            scores (a row of a batch; in a stream, one window of one column), for ``"importance"`` and
            ``"particle-filter"`` a whole one (in a stream, a whole column: weights and particles are carried).
        num_steps: real steps scored.
        num_samples: noisy runs, samples or particles (of all islands); 0 where nothing is sampled.
        pareto_k: of ``"importance"``, the worst Pareto k̂ of a sequence's weights. Above 0.7 they are too uneven for
            the number to be near log p(x), or for its error to be trusted. Infinite where the tail has too few to
            tell; -infinite where all weights are equal.
        unreliable: the share of sequences whose k̂ is above 0.7.
        effective_samples: (Σw)²/Σw², averaged over sequences; of ``"particle-filter"`` over steps too, before
            resampling, and added up over islands.
        resamplings: of ``"particle-filter"``, how often a sequence's particles were resampled, on average.
        log_probs: the log-probability of every step in float64, if asked for: of a stream ``(num_steps,)`` in the order
            of its text, of sequences ``(N, T)`` with 0 beyond each one's length.
        totals: the log-probability of each sequence, ``(N,)`` in float64, and
        lengths: its real steps, ``(N,)``; of a number read from a file, neither is known.
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

    @property
    def perplexity(self) -> float:
        """exp(nats_per_step); infinite where that is too large for a float."""
        return math.exp(self.nats_per_step) if self.nats_per_step < 709.0 else math.inf

    def minus(self, other: Evaluation) -> Difference:
        """How this number differs from another model's on the same sequences.

        Sequences are hard or easy for all models alike, so the difference of each is far better known than either
        number: two standard errors that overlap say little.

        Raises:
            ValueError: numbers of different sequences, or of kinds that differ for other reasons than the models: a
                bound may be below an estimate because it is a bound.
        """
        if {self.kind, other.kind} not in COMPARABLE and self.kind != other.kind:
            raise ValueError(
                f"one number is of kind {self.kind!r} and the other {other.kind!r}, so their difference is not the "
                "models'; evaluate both by one method"
            )
        if self.totals is None or other.totals is None or self.lengths is None or other.lengths is None:
            raise ValueError("one number was read from a file, without its sequences; evaluate the model again")
        if not torch.equal(self.lengths, other.lengths):
            raise ValueError(
                f"the numbers are of other sequences ({len(self.lengths)} and {len(other.lengths)}, with "
                f"{self.num_steps} and {other.num_steps} steps); evaluate both on the same data, by one method"
            )
        nats, error = _per_step(self.totals - other.totals, self.lengths)
        return Difference(nats, error, math.hypot(self.monte_carlo_error, other.monte_carlo_error))


COMPARABLE = ({"exact", "estimate"}, {"exact", "predictor"})
"""Kinds of numbers that may be set against each other: all of one pair are log-likelihoods, or all are predictors."""


@dataclass(frozen=True)
class Difference:
    """Of two numbers on the same sequences, the first minus the second.

    Attributes:
        nats_per_step: negative where the first model is the better one.
        standard_error: over sequences, paired: of the mean of their differences.
        monte_carlo_error: over the noise, which is drawn anew for each number.
    """

    nats_per_step: float
    standard_error: float
    monte_carlo_error: float


def summary(
    method: str, totals: Tensor, lengths: Tensor, kind: str, monte_carlo_error: float, num_samples: int, **more: object
) -> Evaluation:
    """The number of sequences with log-probabilities ``totals`` ``(N,)`` and ``lengths`` ``(N,)``.

    ``monte_carlo_error`` is that of their sum; ``more`` are fields of :class:`Evaluation`.
    """
    totals, lengths = totals.double().cpu(), lengths.cpu()
    steps = int(lengths.sum())
    nats, error = _per_step(totals, lengths)
    more |= {"totals": totals, "lengths": lengths}
    return Evaluation(method, kind, nats, monte_carlo_error / steps, error, steps, num_samples, **more)  # type: ignore[arg-type]


def _per_step(totals: Tensor, lengths: Tensor) -> tuple[float, float]:
    """Total nats over total steps, and the standard error of that ratio over sequences."""
    steps, count = int(lengths.sum()), int((lengths > 0).sum())
    nats = float(-totals.sum() / steps)
    residuals = -totals - nats * lengths.double()
    error = math.sqrt(float(residuals.square().sum()) * count / (count - 1)) / steps if count > 1 else math.nan
    return nats, error


def log_mean(log_w: Tensor) -> tuple[Tensor, Tensor]:
    """log (1/S) Σ_s w_s of each sequence, ``(N,)``, from ``(S, N)``, and the squares of their jackknife errors."""
    return log_w.logsumexp(0) - math.log(len(log_w)), jackknife(without_each(log_w))


def without_each(log_w: Tensor) -> Tensor:
    """log (1/(S-1)) Σ_{r≠s} w_r for each s: ``(S, N)`` from ``(S, N)``; not a number for S = 1."""
    num_samples = len(log_w)
    if num_samples == 1:
        return torch.full_like(log_w, math.nan)
    total, largest = log_w.logsumexp(0), log_w.argmax(0, keepdim=True)
    others = total + torch.log1p(-(log_w - total).exp())
    # the largest may be nearly all of the sum: what it leaves cannot be found by subtraction
    rest = log_w.scatter(0, largest, -math.inf).logsumexp(0, keepdim=True)
    return others.scatter(0, largest, rest) - math.log(num_samples - 1)


def jackknife(left_out: Tensor) -> Tensor:
    """The square of the jackknife error of a number, from what it is without each of S samples, ``(S, ...)``."""
    return (len(left_out) - 1) * left_out.var(0, correction=0)


def by_step(running: Tensor) -> Tensor:
    """log p̂(x_t | x_{<t}) from log p̂(x_{1:t}), ``(B, T)`` both."""
    return running.diff(dim=-1, prepend=torch.zeros_like(running[:, :1]))


def effective_samples(log_w: Tensor, dim: int = 0) -> Tensor:
    """(Σw)²/Σw² along ``dim``."""
    return (2 * log_w.logsumexp(dim) - (2 * log_w).logsumexp(dim)).exp()


def readings(data: Sequences | Stream, batch_size: int | None) -> Iterator[list[Batch]]:
    """What is read in one go: each batch of sequences alone, the windows of a stream one after the other."""
    if isinstance(data, Stream):
        yield list(data.batches(batch_size))
    else:
        yield from ([batch] for batch in data.batches(batch_size))


def row_lengths(*windows: Batch) -> Tensor:
    """Real steps of each row in all windows together, ``(B,)``, on the host."""
    rows, steps = windows[0].targets.shape[0], [batch.targets.shape[1] for batch in windows]
    full = torch.tensor(steps).unsqueeze(1).expand(-1, rows)
    given = [row if b.lengths is None else b.lengths.cpu() for row, b in zip(full, windows, strict=True)]
    return torch.stack(given).sum(0)


def in_reading_order(rows: list[Tensor], data: Sequences | Stream) -> Tensor:
    """The steps of whole sequences as ``(N, T)``, those of whole columns as ``(num_steps,)``."""
    return pad_sequence(rows, batch_first=True) if isinstance(data, Sequences) else torch.cat(rows)
