"""Predictors: one network's probabilities, or the average of many noisy ones', step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference.estimates import Evaluation, in_reading_order, jackknife, row_lengths, summary, without_each
from noisin_pyro.models import real_steps


def predict(
    method: str,
    model: Callable[..., Any],
    data: Sequences | Stream,
    num_samples: int,
    kind: str,
    batch_size: int | None = None,
    log_probs: bool = False,
) -> Evaluation:
    """The probabilities of one run of ``model``, or the average of ``num_samples`` runs'."""
    scores, lengths = _score(model, data, batch_size)
    error = torch.zeros(())
    if num_samples:
        others = [_score(model, data, batch_size)[0] for _ in range(num_samples - 1)]
        scores, error = average(torch.stack([scores, *others]))
    pieces = list(scores.split(lengths.tolist()))
    totals = torch.stack([piece.sum() for piece in pieces])
    found = summary(method, totals, lengths, kind, float(error), num_samples)
    if not log_probs:
        return found
    if isinstance(data, Stream):  # a call's rows come after those of the call before: bring each column together
        pieces = [torch.cat(pieces[column :: data.batch_size]) for column in range(data.batch_size)]
    return replace(found, log_probs=in_reading_order(pieces, data))


def average(runs: Tensor) -> tuple[Tensor, Tensor]:
    """Average S runs' probabilities ``(S, N)`` step by step, and the jackknife error of the sum of their logs."""
    left_out = without_each(runs).sum(1)
    return runs.logsumexp(0) - math.log(len(runs)), jackknife(left_out).sqrt()


def _score(model: Callable[..., Any], data: Sequences | Stream, batch_size: int | None) -> tuple[Tensor, Tensor]:
    """log p(x_t | ·) of every real step in one run, ``(N,)``, and how many steps each sequence has."""
    scores, lengths, state = [], [], None
    for batch in data.batches(batch_size):
        with poutine.block():
            out = model(batch.inputs, batch.targets, state=state if batch.carried else None, lengths=batch.lengths)
        state = out.state
        log_prob = out.emission.log_prob(batch.targets)
        real = None if batch.lengths is None else real_steps(batch.lengths, log_prob.shape[1])
        scores.append(log_prob.flatten() if real is None else log_prob[real])
        lengths.append(row_lengths(batch))
    return torch.cat(scores).double(), torch.cat(lengths)
