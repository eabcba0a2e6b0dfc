"""A gradient step: the bound of a batch, its gradient, clipping, and the optimiser's update.

On a GPU the steps of a text, whose windows are all alike, are one CUDA graph: captured once, replayed for each window,
and nothing waits for the device until the loss is read, every so many steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from noisin_pyro.data import Batch
from noisin_pyro.inference import Bound
from noisin_pyro.inference.guides import Guide
from noisin_pyro.models import SequenceModel
from noisin_pyro.models.noisy_rnn import State
from noisin_pyro.training.distributed import here
from noisin_pyro.training.divergence import require_finite
from noisin_pyro.training.shares import share, whole

EVERY = 50
"""Replayed steps from one reading of the loss to the next."""

WARM = 3
"""Steps of a shape that are taken one by one before the next is captured, as CUDA graphs need."""


class Read(NamedTuple):
    """What steps have come to since they were last read."""

    batches: int
    nats: float
    steps: int
    state: State


class Stepper:
    """Takes steps one by one, and keeps what they have come to until it is read.

    Attributes:
        every: steps after which to read.
        batches, steps, nats: taken since, time steps in them, and their loss.
        state: that to carry on.
        title: what an error calls the pass.
    """

    every = 1

    def __init__(self, bound: Bound, optimizer: torch.optim.Optimizer, clip: float | None = None) -> None:
        self.bound, self.optimizer, self.clip, self.title = bound, optimizer, clip, "training"
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.batches, self.steps, self.nats = 0, 0, 0.0
        self.state: State | None = None

    def take(self, batch: Batch, number: int) -> None:
        """One step, on the batch of that number in its pass.

        Raises:
            FloatingPointError: a loss that is not finite, before it reaches the weights.
        """
        ranks, own = here(), share(batch)
        loss = self.bound(own.inputs, own.targets, state=self.state if own.carried else None, lengths=own.lengths)
        nats, state = ranks.sum(loss.item()), self.bound.returned.state
        self._require_finite(nats, f"step {number}", state)
        self._update(loss / (batch.num_steps / ranks.size))  # the processes' gradients are averaged, not added up
        self.batches, self.steps, self.nats = self.batches + 1, self.steps + batch.num_steps, self.nats + nats
        self.state = state

    def read(self) -> Read:
        """What they have come to; from here on they begin at nothing."""
        told = Read(self.batches, self.nats, self.steps, cast(State, self.state))
        self.batches, self.steps, self.nats = 0, 0, 0.0
        return told

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip is not None:
            clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()

    def _require_finite(self, nats: float, when: str, state: State | None) -> None:
        bound = self.bound
        model = bound.guide.model if isinstance(bound.guide, Guide) else cast(SequenceModel, bound.model)
        require_finite(nats, model, f"{self.title}, {when}", partial(whole, state))


class CapturedStepper(Stepper):
    """Full windows by a graph, and others one by one.

    A loss that is not finite stops all further updates where it stands, on the device, and is told when it is read.

    Args:
        record: makes a function that repeats what another one does to the device; default: a CUDA graph.
    """

    every = EVERY

    def __init__(self, *given: Any, record: Callable[[Callable[[], None]], Callable[[], None]] | None = None) -> None:
        super().__init__(*given)
        self._record = _graph if record is None else record
        self._replay: Callable[[], None] | None = None
        self._key: Any = None
        self._warm = self._number = 0

    @staticmethod
    def can(optimizer: torch.optim.Optimizer, device: torch.device) -> bool:
        """Whether steps can be captured: on a GPU, of one process, by an update that can be held back on the device."""
        return device.type == "cuda" and here().size == 1 and bool(optimizer.defaults.get("fused"))

    def take(self, batch: Batch, number: int) -> None:
        self._number = number
        other = self._key is not None and self._held[1].shape != batch.targets.shape
        if batch.lengths is not None or not batch.carried or self.state is None or other:
            self._settle()
            super().take(batch, number)
            return
        if (key := self._settings()) != self._key:
            self._place(batch, self.state)
            self._key, self._replay, self._warm = key, None, 0
        for kept, new in zip(self._held, (batch.inputs, batch.targets, *_parts(self.state)), strict=True):
            if new is not kept:
                kept.copy_(new)
        if self._replay is None and self._warm < WARM:
            with _aside(batch.targets.device):
                self._step()
            self._warm += 1
        else:
            if self._replay is None:
                self._replay = self._record(self._step)
            self._replay()
        self.state = self._state
        self.batches, self.steps = self.batches + 1, self.steps + batch.num_steps

    def read(self) -> Read:
        self._settle()
        return super().read()

    def _step(self) -> None:
        """What is captured: from buffers that stay where they are, into others."""
        inputs, targets = self._held[:2]
        loss = self.bound(inputs, targets, state=self._state)
        self._spoilt.logical_or_(~loss.detach().isfinite())
        self._found_inf.copy_(self._spoilt)
        self._update(loss / targets.numel())
        self._total += torch.where(self._spoilt, 0.0, loss.detach().double())
        for kept, new in zip(self._held[2:], _parts(self.bound.returned.state), strict=True):
            kept.copy_(new)

    def _place(self, batch: Batch, state: State) -> None:
        """Buffers of these shapes."""
        self._settle()
        device = batch.targets.device
        self._state: State = state.clone() if isinstance(state, Tensor) else (state[0].clone(), state[1].clone())
        self._held = (batch.inputs.clone(), batch.targets.clone(), *_parts(self._state))
        self._total = torch.zeros((), dtype=torch.float64, device=device)
        self._spoilt = torch.zeros((), dtype=torch.bool, device=device)
        self._found_inf = torch.zeros((), device=device)
        cast(Any, self.optimizer).found_inf = self._found_inf  # what fused optimisers ask before they update

    def _settle(self) -> None:
        """Read what the device has summed up."""
        if self._key is None:
            return
        self._require_finite(math.nan if bool(self._spoilt) else 0.0, f"by step {self._number}", self.state)
        self.nats += float(self._total)
        self._total.zero_()
        if self.state is self._state:  # the buffers go on changing
            kept = self._state
            self.state = kept.clone() if isinstance(kept, Tensor) else (kept[0].clone(), kept[1].clone())

    def _settings(self) -> tuple[float, ...]:
        """What a captured step holds for good."""
        rates = tuple(group["lr"] for group in self.optimizer.param_groups)
        return *rates, self.bound.elbo.kl_weight


def _parts(state: State) -> tuple[Tensor, ...]:
    return (state,) if isinstance(state, Tensor) else state


def _graph(step: Callable[[], None]) -> Callable[[], None]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """A stream of its own, in order with the main one: where what precedes a capture has to be done."""
    if device.type != "cuda":
        yield
        return
    stream, main = torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(main)
    with torch.cuda.stream(stream):
        yield
    main.wait_stream(stream)


def stepper(bound: Bound, optimizer: torch.optim.Optimizer, clip: float | None = None) -> Stepper:
    """What takes the steps of a run, captured where that can be.

    Args:
        bound: ``PriorAsGuide_ELBO(...)(model)``, or of a model and a guide; one of several processes has it
            :func:`~noisin_pyro.training.distributed.averaging`.
        optimizer: of its parameters.
        clip: largest norm of the whole gradient; ``None`` leaves it as it is.
    """
    device = optimizer.param_groups[0]["params"][0].device
    kind = CapturedStepper if CapturedStepper.can(optimizer, device) else Stepper
    return kind(bound, optimizer, clip)
