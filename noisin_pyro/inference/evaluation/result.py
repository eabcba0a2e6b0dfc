"""The result of an evaluation: the score, its kind and its errors."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from noisin_pyro.data import Batch, Sequences, Stream
from noisin_pyro.inference.observed import steps_of


@dataclass(frozen=True)
class Evaluation:
    """The score of a model on held-out data, its kind and its errors.

    Attributes:
        method: ``"mean"``, ``"ensemble"``, ``"importance"`` or ``"particle-filter"``.
        kind: ``"exact"`` (the log-likelihood of a deterministic model), ``"bound"`` (its expectation is at most
            log p(x); with one sample it is the ELBO), ``"estimate"`` (of log p(x), from an unbiased estimate of p(x))
            or ``"predictor"`` (a normalized predictive distribution: neither a bound on nor an estimate of the noisy
            model's log p(x)).
        nats_per_step: negative log-probability per step that is scored; lower is better. Padding, missing targets and
            masked ones are in no sum and in no count.
        monte_carlo_error: standard error of ``nats_per_step`` over the noise, by the jackknife over noisy runs, samples
            or islands; 0 if nothing is sampled, NaN for one sample. It measures the variation between repeated
            evaluations, not the gap between a bound and log p(x).
        standard_error: standard error of ``nats_per_step`` over sequences. A text is one sequence; its error is over
            blocks of 500 tokens and does not depend on the columns and windows in which it is read.
        num_steps: number of steps scored.
        num_samples: number of noisy runs, samples or particles (of all islands); 0 if nothing is sampled.
        pareto_k: ``"importance"`` only: the largest Pareto k̂ over sequences. Above 0.7 the weights are too uneven: the
            bound may be far below log p(x), and its Monte Carlo error is unreliable. Infinite if too few weights are in
            the tail, -infinite if all weights are equal.
        unreliable: fraction of sequences with k̂ above 0.7.
        effective_samples: effective sample size (Σw)²/Σw², averaged over sequences; for ``"particle-filter"`` also over
            steps, before resampling, and summed over islands.
        resamplings: ``"particle-filter"`` only: number of resamplings of a sequence's particles, averaged over
            sequences.
        log_probs: if requested, the log-probability of every step in float64: ``(num_steps,)`` in the order of the text
            for a stream, ``(N, T)`` with 0 at steps that are not scored for sequences.
        totals: log-probability of each sequence, or of each block of a text, ``(N,)`` in float64; None in a result read
            from a file.
        lengths: number of scored steps of each sequence or block, ``(N,)``; None in a result read from a file.
        fingerprint: identifies the targets that were scored; None in a result read from a file.
        steps: for a text, the contribution of each token to the log-probability, ``(num_steps,)`` in float64. The
            weights of ``"importance"`` are those of whole windows, so the increment of a window is divided equally
            among its tokens.
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
    fingerprint: str | None = field(default=None, repr=False, compare=False)

    @property
    def perplexity(self) -> float:
        """exp(nats_per_step); infinite if that overflows a float."""
        return perplexity(self.nats_per_step)

    @property
    def monte_carlo_bias(self) -> float:
        """By how much ``nats_per_step`` is expected to be above -log p(x) per step, by the delta method.

        The score of a sequence is the logarithm of an unbiased average p̂, and E[log p̂] ≈ log p - Var[p̂] / (2 p²).
        So the bias is half the variance of log p̂, summed over sequences and divided by the steps. Where it is more than
        about one nat per sequence, it gives no more than the order of magnitude, and more samples or a better proposal
        are needed. 0 if nothing is sampled; NaN for one sample or island, and for predictors.
        """
        return math.nan if self.kind == "predictor" else 0.5 * self.monte_carlo_error**2 * self.num_steps

    def difference(self, other: Evaluation) -> Difference:
        """This result minus another model's result on the same sequences.

        Scores of different models on the same sequence are correlated, so the standard error of the paired difference
        is usually much smaller than that of either result. Two models may differ clearly even if their standard errors
        overlap.

        Raises:
            ValueError: results on different data (targets, or steps that are masked), or of kinds that are not
                comparable, such as a bound and an estimate.
        """
        if {self.kind, other.kind} not in COMPARABLE and self.kind != other.kind:
            raise ValueError(
                f"results of kinds {self.kind!r} and {other.kind!r} are not comparable; evaluate both models by the "
                "same method"
            )
        if self.totals is None or other.totals is None or self.lengths is None or other.lengths is None:
            raise ValueError("a result read from a file lacks the scores of single sequences; evaluate the model again")
        if not torch.equal(self.lengths, other.lengths) or self.fingerprint != other.fingerprint:
            raise ValueError(
                f"results on different data ({len(self.lengths)} and {len(other.lengths)} sequences, with "
                f"{self.num_steps} and {other.num_steps} steps, targets {self.fingerprint} and {other.fingerprint}) "
                "are not comparable; evaluate both models on the same data by the same method"
            )
        nats, error = per_step(self.totals - other.totals, self.lengths)
        return Difference(nats, error, math.hypot(self.monte_carlo_error, other.monte_carlo_error))


BLOCK = 500
"""Number of tokens in a block, the unit of a text's standard error."""

COMPARABLE = ({"exact", "estimate"}, {"exact", "predictor"})
"""Pairs of different kinds that can be compared: both are log-likelihoods, or both are predictive."""


@dataclass(frozen=True)
class Difference:
    """The difference of two results on the same sequences, the first minus the second.

    Attributes:
        nats_per_step: negative if the first model is better.
        standard_error: standard error of the paired difference, over sequences.
        monte_carlo_error: standard error over the noise, which is independent between the two results.
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

    ``monte_carlo_error`` is the error of the sum of ``totals``; ``more`` are other fields of :class:`Evaluation`.
    """
    totals, lengths = totals.double().cpu(), lengths.cpu()
    steps = int(lengths.sum())
    if steps == 0:
        raise ValueError("data: the program masks every step, so there is nothing to score; mask fewer steps")
    nats, error = per_step(totals, lengths)
    more |= {"totals": totals, "lengths": lengths}
    return Evaluation(method, kind, nats, monte_carlo_error / steps, error, steps, num_samples, **more)  # type: ignore[arg-type]


def summary_of_text(
    method: str, steps: Tensor, kind: str, monte_carlo_error: float, num_samples: int, **more: object
) -> Evaluation:
    """The result for a text, from the contribution of each token to its log-probability, ``(num_steps,)``, in order.

    The standard error treats blocks of 500 tokens as independent. The blocks do not depend on columns and windows, so
    results with different columns or windows can be compared block by block.
    """
    blocks = steps.double().cpu().split(BLOCK)
    totals, lengths = torch.stack([block.sum() for block in blocks]), torch.tensor([len(block) for block in blocks])
    more |= {"steps": steps.double().cpu()}
    return summary(method, totals, lengths, kind, monte_carlo_error, num_samples, **more)


def summary_of_steps(
    method: str,
    data: Sequences | Stream,
    steps: Tensor,
    scored: Tensor,
    kind: str,
    monte_carlo_error: float,
    num_samples: int,
    log_probs: bool = False,
) -> Evaluation:
    """The result from the log-probability of each step.

    Args:
        steps: log-probabilities, 0 where they are not scored, ``(N, T)``; rows are sequences, or the columns of a
            stream over all windows.
        scored: which steps are scored, ``(N, T)``.
        log_probs: whether the result contains the log-probabilities.
    """
    options = (kind, monte_carlo_error, num_samples)
    if isinstance(data, Stream):
        steps = steps[scored]
        result = summary_of_text(method, steps, *options, fingerprint=fingerprint(data, scored))
    else:
        counts = scored.sum(1)
        result = summary(method, steps.sum(1), counts, *options, fingerprint=fingerprint(data, scored))
    return replace(result, log_probs=steps) if log_probs else result


def fingerprint(data: Sequences | Stream, scored: Tensor | None = None) -> str:
    """Identifies the targets that are scored, ``(N, T)`` as in :func:`summary_of_steps`; by default all of the data's.

    It does not depend on the columns and windows of a text, or on the precision of real values above float32.
    """
    batches = [(batch.targets, steps_of(batch)) for batch in data.batches()]
    if isinstance(data, Stream):
        targets, own = (torch.cat(parts, 1) for parts in zip(*batches, strict=True))
    else:
        ((targets, own),) = batches
    scored = own if scored is None else scored
    values = targets[scored.to(targets.device)].cpu()
    digest = hashlib.sha256((values.float() if values.is_floating_point() else values).numpy().tobytes())
    if isinstance(data, Sequences):
        digest.update(scored.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def per_step(totals: Tensor, lengths: Tensor) -> tuple[float, float]:
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
    # subtracting a weight that is nearly all of the sum would cancel, so the others are summed directly
    rest = log_w.scatter(0, largest, -math.inf).logsumexp(0, keepdim=True)
    return others.scatter(0, largest, rest) - math.log(num_samples - 1)


def jackknife_variance(left_out: Tensor) -> Tensor:
    """The jackknife variance of a statistic, from its values with each of S samples left out, ``(S, ...)``."""
    return (len(left_out) - 1) * left_out.var(0, correction=0)


def by_step(running: Tensor) -> Tensor:
    """log p̂(x_t | x_{<t}) from log p̂(x_{1:t}), both ``(B, T)``; 0 where p̂(x_{<t}) is 0 already."""
    before = F.pad(running[:, :-1], (1, 0))
    return (running - before).where(before != -math.inf, 0.0)


def window_groups(data: Sequences | Stream, batch_size: int | None) -> Iterator[list[Batch]]:
    """Groups of batches along which states are carried: all windows of a stream, or a single batch of sequences."""
    if isinstance(data, Stream):
        yield list(data.batches(batch_size))
    else:
        yield from ([batch] for batch in data.batches(batch_size))


def stack_rows(parts: list[Tensor]) -> Tensor:
    """Values of groups of rows, ``(..., B, T)`` each, as ``(..., N, T)``, with zeros behind shorter groups."""
    longest = max(part.shape[-1] for part in parts)
    return torch.cat([F.pad(part, (0, longest - part.shape[-1])) for part in parts], -2)
