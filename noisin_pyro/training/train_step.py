"""A gradient step: the bound of a batch, its gradient, clipping, and the optimizer's update; and the finite checks.

On a GPU the steps of a text, whose windows all have one shape, are a CUDA graph: captured once and replayed for each
window. Nothing then waits for the device until the loss is read, every ``READ_EVERY`` steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from noisin_pyro.data import Batch
from noisin_pyro.inference import Bound
from noisin_pyro.inference.guides import Guide
from noisin_pyro.models import SequenceModel
from noisin_pyro.training.distributed import SINGLE, World
from noisin_pyro.training.sharding import CarriedState, gather_state, shard

READ_EVERY = 50
"""Replayed steps between two readings of the loss."""

WARMUP_STEPS = 3
"""Steps of a shape that run one by one before the next is captured, as CUDA graphs need."""


class Totals(NamedTuple):
    """Sums over the steps since the last reading: batches, nats and time steps; and the RNN state at their end."""

    batches: int
    nats: float
    steps: int
    state: CarriedState


class TrainStep:
    """Takes gradient steps one by one, and sums up their losses until they are read.

    Args:
        bound: ``PriorAsGuide_ELBO(...)(model)``, or of a model and a guide; of several processes,
            :func:`~noisin_pyro.training.distributed.data_parallel` of that.
        optimizer: of its parameters.
        clip: maximum global gradient norm; ``None`` does not clip.
        world: the processes that train together.

    Attributes:
        read_every: number of steps after which to read.
        batches, steps, nats: sums since the last reading.
        state: RNN state to carry.
        title: name of the pass in errors.
    """

    read_every = 1

    def __init__(
        self, bound: Bound, optimizer: torch.optim.Optimizer, clip: float | None = None, world: World = SINGLE
    ) -> None:
        self.bound, self.optimizer, self.clip, self.world, self.title = bound, optimizer, clip, world, "training"
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.batches, self.steps, self.nats = 0, 0, 0.0
        self.state: CarriedState | None = None

    def __call__(self, batch: Batch, number: int) -> None:
        """Take a step on the batch of that number in its pass.

        Raises:
            FloatingPointError: a loss that is not finite, before it reaches the weights.
        """
        rows = shard(batch, self.world)
        loss = self.bound(rows.inputs, rows.targets, state=self.state if rows.carried else None, **rows.keywords)
        nats, state = self.world.sum(loss.item()), self.bound.returned.state
        self._require_finite(nats, f"step {number}", state)
        self._update(loss / (max(batch.num_steps, 1) / self.world.size))  # gradients are averaged over the processes
        self.batches, self.steps, self.nats = self.batches + 1, self.steps + batch.num_steps, self.nats + nats
        self.state = state

    def read(self) -> Totals:
        """Return the sums, and set them to zero."""
        totals = Totals(self.batches, self.nats, self.steps, cast(CarriedState, self.state))
        self.batches, self.steps, self.nats = 0, 0, 0.0
        return totals

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad()
        loss.backward()
        if self.clip is not None:
            clip_grad_norm_(self.parameters, self.clip)
        self.optimizer.step()

    def _require_finite(self, nats: float, when: str, state: CarriedState | None) -> None:
        bound = self.bound
        model = bound.guide.model if isinstance(bound.guide, Guide) else cast(SequenceModel, bound.model)
        require_finite(nats, model, f"{self.title}, {when}", lambda: gather_state(state, self.world))


class CUDAGraphTrainStep(TrainStep):
    """Takes full windows by a CUDA graph, and others one by one.

    A loss that is not finite stops all further updates on the device, and is reported when it is read.

    Args:
        record: makes a function that repeats what another one does on the device; by default a CUDA graph.
    """

    read_every = READ_EVERY

    def __init__(self, *args: Any, record: Callable[[Callable[[], None]], Callable[[], None]] | None = None) -> None:
        super().__init__(*args)
        self._record = _cuda_graph if record is None else record
        self._replay: Callable[[], None] | None = None
        self._captured_settings: Any = None
        self._num_warm = self._number = 0

    @staticmethod
    def is_supported(optimizer: torch.optim.Optimizer, device: torch.device, world: World = SINGLE) -> bool:
        """Whether steps can be captured: on a GPU, in one process, by an update that can be skipped on the device."""
        return device.type == "cuda" and world.size == 1 and bool(optimizer.defaults.get("fused"))

    def __call__(self, batch: Batch, number: int) -> None:
        self._number = number
        other_shape = self._captured_settings is not None and self._buffers[1].shape != batch.targets.shape
        if batch.lengths is not None or not batch.carried or self.state is None or other_shape:
            self._synchronize()
            super().__call__(batch, number)
            return
        if (settings := self._settings()) != self._captured_settings:
            self._allocate(batch, self.state)
            self._captured_settings, self._replay, self._num_warm = settings, None, 0
        for buffer, value in zip(self._buffers, (batch.inputs, batch.targets, *_parts(self.state)), strict=True):
            if value is not buffer:
                buffer.copy_(value)
        if self._replay is None and self._num_warm < WARMUP_STEPS:
            with _side_stream(batch.targets.device):
                self._step()
            self._num_warm += 1
        else:
            if self._replay is None:
                self._replay = self._record(self._step)
            self._replay()
        self.state = self._state
        self.batches, self.steps = self.batches + 1, self.steps + batch.num_steps

    def read(self) -> Totals:
        self._synchronize()
        return super().read()

    def _step(self) -> None:
        """What is captured: it reads and writes buffers that stay where they are."""
        inputs, targets = self._buffers[:2]
        loss = self.bound(inputs, targets, state=self._state)
        self._diverged.logical_or_(~loss.detach().isfinite())
        self._found_inf.copy_(self._diverged)
        self._update(loss / targets.numel())
        self._total += torch.where(self._diverged, 0.0, loss.detach().double())
        for buffer, value in zip(self._buffers[2:], _parts(self.bound.returned.state), strict=True):
            buffer.copy_(value)

    def _allocate(self, batch: Batch, state: CarriedState) -> None:
        self._synchronize()
        device = batch.targets.device
        self._state: CarriedState = _clone(state)
        self._buffers = (batch.inputs.clone(), batch.targets.clone(), *_parts(self._state))
        self._total = torch.zeros((), dtype=torch.float64, device=device)
        self._diverged = torch.zeros((), dtype=torch.bool, device=device)
        self._found_inf = torch.zeros((), device=device)
        cast(Any, self.optimizer).found_inf = self._found_inf  # fused optimizers skip their update where it is 1

    def _synchronize(self) -> None:
        """Read the sum on the device."""
        if self._captured_settings is None:
            return
        self._require_finite(math.nan if bool(self._diverged) else 0.0, f"by step {self._number}", self.state)
        self.nats += float(self._total)
        self._total.zero_()
        if self.state is self._state:  # later steps overwrite the buffers
            self.state = _clone(self._state)

    def _settings(self) -> tuple[float, ...]:
        """Numbers that a captured step holds as constants."""
        rates = tuple(group["lr"] for group in self.optimizer.param_groups)
        return *rates, self.bound.elbo.kl_weight


def make_train_step(
    bound: Bound, optimizer: torch.optim.Optimizer, clip: float | None = None, world: World = SINGLE
) -> TrainStep:
    """A :class:`TrainStep`, captured as a CUDA graph where that is supported."""
    device = optimizer.param_groups[0]["params"][0].device
    # capture of the filtering bound is untested
    supported = bound.elbo.bound != "filtering" and CUDAGraphTrainStep.is_supported(optimizer, device, world)
    return (CUDAGraphTrainStep if supported else TrainStep)(bound, optimizer, clip, world)


def require_finite(
    nats: float, model: SequenceModel, where: str, state: Callable[[], CarriedState | None] = lambda: None
) -> None:
    """Raise if a loss is not finite.

    Args:
        where: the epoch and step, or another description of what the loss is for.
        state: returns the RNN state after the steps of this loss, if it is known.

    Raises:
        FloatingPointError: naming the first layer that is not finite, and γ.
    """
    if not math.isfinite(nats):
        raise FloatingPointError(
            f"{where}: the loss is {nats}, {_origin(model, state())} ({spreads(model)}); take a smaller learning rate "
            "or spread, or clip the gradient at a smaller norm"
        )


def require_finite_weights(model: SequenceModel, where: str, guide: nn.Module | None = None) -> None:
    """Raise if a weight of the model or the guide is not finite.

    Raises:
        FloatingPointError: naming the first, and γ.
    """
    if (name := _first_non_finite(model) or _first_non_finite(guide)) is not None:
        raise FloatingPointError(
            f"{where}: {name} is no longer finite ({spreads(model)}); take a smaller rate, or clip the gradient"
        )


def spreads(model: SequenceModel) -> str:
    """γ of each layer now, as text; the inputs' first if they have noise."""
    values = model.rnn.spreads()
    names = [f"gamma_{layer}" for layer in range("gamma_0" not in values, model.rnn.num_layers + 1)]
    return "spread of each layer: " + ", ".join(f"{name} = {values.get(name, 0.0):.4g}" for name in names)


def _origin(model: SequenceModel, state: CarriedState | None) -> str:
    if state is None:
        name = _first_non_finite(model)
        return "though all weights are finite" if name is None else f"as {name} is not finite"
    for layer, ends in enumerate(zip(*_parts(state), strict=True), start=1):
        if not all(end.isfinite().all() for end in ends):
            return f"first in the states of layer {layer}"
    return "first in the emission: the states of all layers are finite"


def _first_non_finite(module: nn.Module | None) -> str | None:
    named = () if module is None else module.named_parameters()
    return next((name for name, value in named if not value.isfinite().all()), None)


def _parts(state: CarriedState) -> tuple[Tensor, ...]:
    return (state,) if isinstance(state, Tensor) else state


def _clone(state: CarriedState) -> CarriedState:
    return state.clone() if isinstance(state, Tensor) else cast(CarriedState, tuple(part.clone() for part in state))


def _cuda_graph(step: Callable[[], None]) -> Callable[[], None]:
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


@contextmanager
def _side_stream(device: torch.device) -> Iterator[None]:
    """Run the steps before a capture on a side stream, as CUDA graphs require, in order with the main stream."""
    if device.type != "cuda":
        yield
        return
    stream, main = torch.cuda.Stream(), torch.cuda.current_stream()
    stream.wait_stream(main)
    with torch.cuda.stream(stream):
        yield
    main.wait_stream(stream)
