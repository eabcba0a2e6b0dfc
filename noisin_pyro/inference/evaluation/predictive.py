"""Scores by predictive probabilities: of one run, or averaged over noisy runs step by step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference.evaluation.result import (
    Evaluation,
    jackknife_variance,
    joined_rows,
    leave_one_out,
    row_lengths,
    summary,
    summary_of_text,
)
from noisin_pyro.inference.importance_weights import log_mean_exp
from noisin_pyro.models import real_steps
from noisin_pyro.models.sequence_model import require_output


def predict(
    method: str,
    model: Callable[..., Any],
    data: Sequences | Stream,
    num_samples: int,
    kind: str,
    batch_size: int | None = None,
    log_probs: bool = False,
) -> Evaluation:
    """Score by the probabilities of one run (``num_samples`` is 0), or by their average over ``num_samples`` runs."""
    scores, lengths = _score(model, data, batch_size)
    error = torch.zeros(())
    if num_samples:
        others = [_score(model, data, batch_size)[0] for _ in range(num_samples - 1)]
        scores, error = average(torch.stack([scores, *others]))
    pieces = list(scores.split(lengths.tolist()))
    if isinstance(data, Stream):  # pieces are ordered by window, then by column: join the pieces of each column
        text = torch.cat([torch.cat(pieces[column :: data.batch_size]) for column in range(data.batch_size)])
        result = summary_of_text(method, text, kind, float(error), num_samples)
        return replace(result, log_probs=text) if log_probs else result
    totals = torch.stack([piece.sum() for piece in pieces])
    result = summary(method, totals, lengths, kind, float(error), num_samples)
    return replace(result, log_probs=joined_rows(pieces, data)) if log_probs else result


def average(runs: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of the probabilities averaged over S runs, ``(N,)`` from ``(S, N)``, and the jackknife standard error
    of their sum."""
    return log_mean_exp(runs), jackknife_variance(leave_one_out(runs).sum(1)).sqrt()


def _score(model: Callable[..., Any], data: Sequences | Stream, batch_size: int | None) -> tuple[Tensor, Tensor]:
    """log p(x_t | ·) of every real step in one run, ``(N,)``, and the number of steps of each sequence."""
    scores, lengths, state = [], [], None
    for batch in data.batches(batch_size):
        with poutine.block():
            carried = state if batch.carried else None
            out = require_output(model(batch.inputs, batch.targets, state=carried, lengths=batch.lengths))
        state = out.state
        log_prob = out.emission.log_prob(batch.targets)
        real = None if batch.lengths is None else real_steps(batch.lengths, log_prob.shape[1])
        scores.append(log_prob.flatten() if real is None else log_prob[real])
        lengths.append(row_lengths(batch))
    return torch.cat(scores).double(), torch.cat(lengths)
