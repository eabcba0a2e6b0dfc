"""How far a run is: what its checkpoints hold beside the model, the optimiser and the generators."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from noisin_pyro.models.noisy_rnn import State
from noisin_pyro.training.kinds import checked
from noisin_pyro.training.log import Row, require_whole
from noisin_pyro.training.options import Optimisation
from noisin_pyro.training.shares import own, whole


@dataclass
class Pass:
    """What one pass over the data has done so far: batches, their nats and steps, seconds, and the state to carry."""

    batches: int = 0
    nats: float = 0.0
    steps: int = 0
    seconds: float = 0.0
    state: State | None = None

    def add(self, batches: int, nats: float, steps: int, state: State, seconds: float) -> None:
        """So many more batches."""
        self.batches, self.nats, self.steps = self.batches + batches, self.nats + nats, self.steps + steps
        self.seconds, self.state = self.seconds + seconds, state

    @property
    def nats_per_step(self) -> float:
        """The loss of the pass so far."""
        return self.nats / self.steps


@dataclass
class Progress:
    """The epochs done, and the one under way.

    Attributes:
        rows: the log, a row for each epoch done.
        under_way: the pass of the epoch after those.
        order: state that the generator of the data's order had before that pass; ``None`` for a text.
    """

    rows: list[Row] = field(default_factory=list)
    under_way: Pass = field(default_factory=Pass)
    order: Tensor | None = None

    @property
    def epoch(self) -> int:
        """The epoch under way; the first is 1."""
        return len(self.rows) + 1

    @property
    def valid_nats(self) -> list[float]:
        """What validation found after each epoch done."""
        return [row["valid_nats"] for row in self.rows]

    @property
    def best_nats(self) -> float:
        """The best validation so far."""
        return min(self.valid_nats, default=math.inf)

    def finished(self, how: Optimisation) -> bool:
        """Whether all epochs are done, the last ones were in vain, or the time is up."""
        if not self.rows or len(self.rows) >= how.epochs:
            return len(self.rows) >= how.epochs
        in_vain = len(self.rows) - 1 - self.valid_nats.index(self.best_nats)
        if how.patience is not None and in_vain >= how.patience:
            return True
        return how.minutes is not None and sum(row["seconds"] for row in self.rows) >= 60 * how.minutes

    def close_epoch(self, row: Row) -> None:
        """The epoch under way is done; the next has not begun."""
        self.rows.append(row)
        self.under_way = Pass()

    def to_plain(self) -> dict[str, Any]:
        """Dictionaries, lists, numbers and tensors; of several processes, with the states of all."""
        under_way = dataclasses.replace(self.under_way, state=whole(self.under_way.state))
        return asdict(dataclasses.replace(self, under_way=under_way))

    def load(self, plain: dict[str, Any], device: Any) -> None:
        """Take over what :meth:`to_plain` gave, the state that this process carries to ``device``.

        Raises:
            ValueError: values of other types, or rows that are not a log's.
        """
        under_way = checked(Pass(**plain["under_way"]))
        kept = checked(Progress(plain["rows"], under_way, plain["order"]))
        state = kept.under_way.state
        self.rows, self.order = require_whole(kept.rows), kept.order
        self.under_way = dataclasses.replace(under_way, state=None if state is None else own(state, device))
