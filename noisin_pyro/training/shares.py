"""What each of several processes has of a batch, of the data to score and of the states carried, and the whole again.

Rows are shared in blocks: those of the first process come first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from noisin_pyro.data import Batch, Sequences, Stream
from noisin_pyro.inference import Evaluation
from noisin_pyro.inference.evaluation.result import summary, summary_of_text
from noisin_pyro.models.noisy_rnn import State
from noisin_pyro.training.distributed import here

Steps = Sequences | Stream


def share(batch: Batch) -> Batch:
    """This process's rows of a batch; where there is none for it, one without a step, which costs nothing."""
    rows = here().rows(len(batch.inputs))
    if rows.start < rows.stop:
        return batch.rows(rows)
    nothing = torch.zeros(1, dtype=torch.long, device=batch.inputs.device)
    return replace(batch.rows(slice(1)), lengths=nothing)


def scored(score: Callable[[Steps], Evaluation], data: Steps) -> Evaluation:
    """The number of all the data, of which each process scores its rows: the same as of one process, noise aside.

    What :class:`Evaluation` has of single samples (k̂, effective samples, each step) is left out.
    """
    ranks = here()
    if ranks.size == 1:
        return score(data)
    rows = ranks.rows(data.batch_size if isinstance(data, Stream) else len(data))
    found = None
    if rows.start < rows.stop:
        own = score(data.rows(rows))
        values = (own.totals, own.lengths) if own.steps is None else (own.steps,)
        found = own, *values, own.monte_carlo_error * own.num_steps
    first, *values, errors = zip(*filter(None, ranks.gathered(found)), strict=True)
    # the noise of one process is independent of another's: the squares of the errors add up
    method, kind, error, samples = first[0].method, first[0].kind, math.hypot(*errors), first[0].num_samples
    gathered = [torch.cat(parts) for parts in values]  # a process has consecutive columns of a text
    if len(gathered) == 1:
        return summary_of_text(method, gathered[0], kind, error, samples)
    return summary(method, gathered[0], gathered[1], kind, error, samples)


def whole(state: State | None) -> State | None:
    """The states of all rows, ``(L, ..., B, H)``, from those that each process has."""
    ranks = here()
    if state is None or ranks.size == 1:
        return state
    if isinstance(state, Tensor):
        return torch.cat(ranks.gathered(state.cpu()), -2)
    z, c = (torch.cat(ranks.gathered(part.cpu()), -2) for part in state)
    return z, c


def own(state: State, device: torch.device | str) -> State:
    """This process's rows of the states of all, on its device."""
    if not isinstance(state, Tensor):
        z, c = (_own(part, device) for part in state)
        return z, c
    return _own(state, device)


def _own(part: Tensor, device: torch.device | str) -> Tensor:
    return part[..., here().rows(part.shape[-2]), :].to(device)
