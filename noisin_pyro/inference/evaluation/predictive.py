"""Scores by predictive probabilities: of one run, or averaged over noisy runs step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference.evaluation.result import (
    Evaluation,
    jackknife_variance,
    leave_one_out,
    stack_rows,
    summary_of_steps,
    window_groups,
)
from noisin_pyro.inference.importance_weights import log_mean_exp
from noisin_pyro.inference.observed import ObservedSites, observed_steps
from noisin_pyro.models.output import require_output


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
    steps, scored = _score(model, data, batch_size)
    error = torch.zeros(())
    if num_samples:
        runs = [steps[scored], *(_score(model, data, batch_size)[0][scored] for _ in range(num_samples - 1))]
        average_steps, error = average(torch.stack(runs))
        steps = steps.masked_scatter(scored, average_steps)
    return summary_of_steps(method, data, steps, scored, kind, float(error), num_samples, log_probs)


def average(runs: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of the probabilities averaged over S runs, ``(N,)`` from ``(S, N)``, and the jackknife standard error
    of their sum."""
    return log_mean_exp(runs), jackknife_variance(leave_one_out(runs).sum(1)).sqrt()


def _score(model: Callable[..., Any], data: Sequences | Stream, batch_size: int | None) -> tuple[Tensor, Tensor]:
    """log p(x_t | ·) of every step in one run, 0 where it is not scored, and which steps are, both ``(N, T)``."""
    rows = []
    for windows in window_groups(data, batch_size):
        parts, state = [], None
        for batch in windows:
            with poutine.block(), ObservedSites() as observed:
                out = require_output(model(batch.inputs, batch.targets, state=state, **batch.keywords))
            state, scored = out.state, observed_steps(observed.sites, batch)
            parts.append((out.emission.log_prob(batch.targets).double().where(scored, 0.0), scored))
        rows.append([torch.cat(part, 1) for part in zip(*parts, strict=True)])
    steps, scored = (stack_rows(list(part)) for part in zip(*rows, strict=True))
    return steps, scored
