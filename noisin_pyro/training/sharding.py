"""Sharding of batches, held-out data and carried RNN states over processes.

Each process has a block of consecutive rows, in the order of the ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor

from noisin_pyro.data import Batch, Sequences, Stream
from noisin_pyro.inference import Evaluation
from noisin_pyro.inference.evaluation.result import summary, summary_of_text
from noisin_pyro.models.noisy_rnn import State
from noisin_pyro.training.distributed import World

SequenceData = Sequences | Stream
CarriedState = State | tuple[Tensor, Tensor, Tensor]
"""What is carried from batch to batch: RNN states, or particles: their states and log-weights."""


def shard(batch: Batch, world: World) -> Batch:
    """This process's rows of a batch; one row of length 0, which adds nothing to the loss, if there are none."""
    rows = world.rows(len(batch.inputs))
    if rows.start < rows.stop:
        return batch.rows(rows)
    no_steps = torch.zeros(1, dtype=torch.long, device=batch.inputs.device)
    return replace(batch.rows(slice(1)), lengths=no_steps)


def scored(score: Callable[[SequenceData], Evaluation], data: SequenceData, world: World) -> Evaluation:
    """Evaluate the data in all processes, each on its rows. Only the draws of the noise differ from one process's.

    Diagnostics of single samples (k̂, effective samples, resamplings) are left out if there are several processes.
    """
    if world.size == 1:
        return score(data)
    rows = world.rows(data.batch_size if isinstance(data, Stream) else len(data))
    part = None
    if rows.start < rows.stop:
        evaluation = score(data.rows(rows))
        values = (evaluation.totals, evaluation.lengths) if evaluation.steps is None else (evaluation.steps,)
        part = evaluation, *values, evaluation.monte_carlo_error * evaluation.num_steps
    evaluations, *values, errors = zip(*filter(None, world.all_gather(part)), strict=True)
    first = evaluations[0]
    # The noise of each process is independent of the others': the squares of the errors add up.
    method, kind, error, samples = first.method, first.kind, math.hypot(*errors), first.num_samples
    gathered = [torch.cat(parts) for parts in values]  # a process has consecutive columns of a text
    if len(gathered) == 1:
        return summary_of_text(method, gathered[0], kind, error, samples)
    return summary(method, gathered[0], gathered[1], kind, error, samples)


def gather_state(state: CarriedState | None, world: World) -> CarriedState | None:
    """The RNN states of all rows, ``(L, ..., B, H)``, from those of each process."""
    if state is None or world.size == 1:
        return state
    if isinstance(state, Tensor):
        return torch.cat(world.all_gather(state.cpu()), -2)
    return cast(CarriedState, tuple(torch.cat(world.all_gather(part.cpu()), -2) for part in state))


def shard_state(state: CarriedState, device: torch.device, world: World) -> CarriedState:
    """This process's rows of the RNN states of all, on ``device``."""
    if isinstance(state, Tensor):
        return state[..., world.rows(state.shape[-2]), :].to(device)
    return cast(CarriedState, tuple(part[..., world.rows(part.shape[-2]), :].to(device) for part in state))
