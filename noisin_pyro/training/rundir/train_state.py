"""State of training: epochs done, progress in the current epoch, and the order of the data."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from noisin_pyro.training.config import Config
from noisin_pyro.training.distributed import World
from noisin_pyro.training.rundir.metrics_log import Row, require_whole
from noisin_pyro.training.sharding import CarriedState, gather_state, shard_state
from noisin_pyro.training.type_checks import check_types


@dataclass
class EpochState:
    """One pass over the data so far: batches, their nats and time steps, seconds, and the RNN state to carry."""

    batches: int = 0
    nats: float = 0.0
    steps: int = 0
    seconds: float = 0.0
    state: CarriedState | None = None

    def add(self, batches: int, nats: float, steps: int, state: CarriedState, seconds: float) -> None:
        """Count more batches."""
        self.batches, self.nats, self.steps = self.batches + batches, self.nats + nats, self.steps + steps
        self.seconds, self.state = self.seconds + seconds, state

    @property
    def nats_per_step(self) -> float:
        """Mean loss of the pass so far."""
        return self.nats / self.steps


@dataclass
class TrainState:
    """The epochs done, and the current one.

    Attributes:
        rows: the log, a row for each epoch done.
        under_way: the current epoch.
        order: state of the generator of the data's order before the current epoch; ``None`` for a text.
    """

    rows: list[Row] = field(default_factory=list)
    under_way: EpochState = field(default_factory=EpochState)
    order: Tensor | None = None

    @property
    def epoch(self) -> int:
        """Number of the current epoch; the first is 1."""
        return len(self.rows) + 1

    @property
    def valid_nats(self) -> list[float]:
        """Validation of each epoch done."""
        return [row["valid_nats"] for row in self.rows]

    @property
    def best_nats(self) -> float:
        """The best validation so far."""
        return min(self.valid_nats, default=math.inf)

    def is_finished(self, config: Config) -> bool:
        """Whether the number of epochs, the patience or the time is used up.

        The patience begins with the last epoch of KL annealing: before it, the bound in validation, whose KL has its
        full weight, may get worse for a while.
        """
        optimization = config.optimization
        if not self.rows or len(self.rows) >= optimization.epochs:
            return len(self.rows) >= optimization.epochs
        start = max(1 + self.valid_nats.index(self.best_nats), config.inference.kl_annealing or 0)
        if optimization.patience is not None and len(self.rows) - start >= optimization.patience:
            return True
        seconds = sum(row["seconds"] for row in self.rows)
        return optimization.minutes is not None and seconds >= 60 * optimization.minutes

    def end_epoch(self, row: Row) -> None:
        """Add the current epoch's row; the next epoch becomes the current one."""
        self.rows.append(row)
        self.under_way = EpochState()

    def state_dict(self, world: World) -> dict[str, Any]:
        """Dictionaries, lists, numbers and tensors, with the RNN states of all processes."""
        under_way = dataclasses.replace(self.under_way, state=gather_state(self.under_way.state, world))
        return asdict(dataclasses.replace(self, under_way=under_way))

    def load_state_dict(self, content: dict[str, Any], device: torch.device, world: World) -> None:
        """Load what :meth:`state_dict` returned, this process's rows of the RNN state onto ``device``.

        Raises:
            ValueError: values of other types, or rows that are not a log's.
        """
        under_way = check_types(EpochState(**content["under_way"]))
        saved = check_types(TrainState(content["rows"], under_way, content["order"]))
        state = under_way.state
        self.rows, self.order = require_whole(saved.rows), saved.order
        state = None if state is None else shard_state(state, device, world)
        self.under_way = dataclasses.replace(under_way, state=state)
