"""Validation during training, and the number of held-out sequences in a batch."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from noisin_pyro.data import Stream
from noisin_pyro.inference import Evaluation, evaluate
from noisin_pyro.inference.guides import Guide
from noisin_pyro.models import SequenceModel
from noisin_pyro.training.build import resolved
from noisin_pyro.training.config import Config
from noisin_pyro.training.distributed import SINGLE, World
from noisin_pyro.training.options import Data
from noisin_pyro.training.sharding import SequenceData, scored

ISLANDS, ISLAND_FACTOR = 4, 4
"""The final test of the filtering bound: the number of islands, and their particles relative to those in training."""


def validate(
    model: SequenceModel,
    guide: Guide | None,
    data: SequenceData,
    config: Config,
    world: World = SINGLE,
    final: bool = False,
) -> Evaluation:
    """Evaluate the network with its noise off or, with a guide, its bound with one draw per sequence.

    With ``bound="filtering"`` it is the particle filter's estimate, with as many particles as in training; in the
    ``final`` test with four islands of four times as many, from which its Monte Carlo error is computed.
    """
    optimization = config.optimization
    options: dict[str, Any] = {"batch_size": eval_rows(data, config.data, world)}
    if optimization.bound == "filtering":
        islands, factor = (ISLANDS, ISLANDS * ISLAND_FACTOR) if final else (1, 1)
        options |= {"method": "particle-filter", "num_samples": factor * optimization.num_particles, "islands": islands}
        options |= {"guide": guide, "threshold": optimization.threshold}
    elif guide is None:
        options |= {"method": "mean"}
    else:
        options |= {"method": "importance", "guide": guide, "num_samples": 1}
    return scored(partial(evaluate, model, **options), data, world)


def eval_rows(data: SequenceData, options: Data, world: World = SINGLE) -> int | None:
    """Number of sequences that a process scores in one call; ``None`` for a text, which has its own columns."""
    if isinstance(data, Stream):
        return None
    batch_size = resolved(options).eval_batch_size
    assert batch_size is not None
    return math.ceil(batch_size / world.size)
