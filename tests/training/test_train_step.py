"""Captured steps: the same as one by one, without waiting for the device, and stopped by a loss that is not finite.

There is no GPU here: what a graph would hold is run again as it is, from and into the same buffers.
"""

import copy
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference import Bound, PriorAsGuide_ELBO, guides
from noisin_pyro.models import LanguageModel, Spread, innovations
from noisin_pyro.noise import describe, families, get
from noisin_pyro.training import loop
from noisin_pyro.training.optim import build_optimizer
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.train_step import WARMUP_STEPS, CUDAGraphTrainStep, TrainStep

WORDS = 11


@pytest.fixture
def stream() -> Stream:
    """Windows of 5 in 4 columns, the last one ragged."""
    torch.manual_seed(0)
    return Stream(torch.randint(WORDS, (4 * 5 * 12 + 7,)), 4, 5)


def make(cell: str = "lstm", noise: str = "gaussian", learn: bool = False, particles: int = 1) -> Bound:
    torch.manual_seed(1)
    model = LanguageModel(WORDS, 6, 2, cell=cell, noise=noise, spread=Spread(0.3, learn=learn)).double()
    return PriorAsGuide_ELBO(num_particles=particles, max_plate_nesting=1)(model)


class Recorder:
    """Replaces a CUDA graph: stores the step that would be captured, and counts its replays."""

    def __init__(self) -> None:
        self.recorded = self.replays = 0
        self.step: Callable[[], None] | None = None

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        self.step = step

        def replay() -> None:
            self.replays += 1
            step()

        return replay


def trained(bound: Bound, stream: Stream, name: str, make_step: Callable) -> tuple[list[float], int]:
    optimizer = build_optimizer(name, bound.parameters(), 0.01)
    pyro.set_rng_seed(2)
    steps = make_step(bound, optimizer, 0.1)
    seen: list[int] = []
    nats = []
    for epoch in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 / (1 + epoch // 2)  # which requires a new capture
        nats.append(loop.train_epoch(steps, stream.batches(), after_step=lambda: seen.append(1)))
    return nats, len(seen)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize(
    ("cell", "noise", "learn", "particles"),
    [("tanh", "gaussian", True, 1), ("lstm", "gamma", False, 3), ("gru", "gaussian:multiplicative", True, 1)],
)
def test_captured_steps_are_those_taken_one_by_one(
    stream: Stream, optimizer: str, cell: str, noise: str, learn: bool, particles: int
) -> None:
    recorder = Recorder()
    with program_settings():
        bound = make(cell, noise, learn, particles)
        other = copy.deepcopy(bound)
        expected, steps = trained(bound, stream, optimizer, TrainStep)
        losses, readings = trained(other, stream, optimizer, lambda *given: CUDAGraphTrainStep(*given, record=recorder))
    assert losses == pytest.approx(expected, abs=1e-12)
    for parameter, same in zip(other.parameters(), bound.parameters(), strict=True):
        torch.testing.assert_close(parameter, same, rtol=0, atol=1e-12)
    batches = len(list(stream.batches()))
    assert steps == 3 * batches and readings == 3  # an epoch has fewer steps than one reading
    full = batches - 2  # the first carries nothing, the last is ragged
    assert recorder.recorded == 2 and recorder.replays == 3 * full - 2 * WARMUP_STEPS  # twice, for two learning rates


class NoWaiting(TorchDispatchMode):
    """Refuses operations that make the CPU wait for a GPU, or whose output's shape depends on values."""

    WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal.default", "masked_select", "unique", "bincount")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(name in str(func) for name in self.WAITS), f"{func} waits for the device"
        assert not any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for index in (args[1] if "aten.index" in str(func) and isinstance(args[1], list) else ())
        ), "an index of booleans waits for the device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("wait", [Tensor.item, Tensor.nonzero, lambda x: x[x > 0]])
def test_operations_that_wait_are_refused(wait: Callable[[Tensor], object]) -> None:
    with NoWaiting(), pytest.raises(AssertionError, match="waits for the device"):
        wait(torch.ones(1))


@pytest.fixture
def no_numbers_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor made of a number on a device that is named is a copy that a capture refuses."""
    make = torch.tensor

    def tensor(*given: Any, **options: Any) -> torch.Tensor:
        assert options.get("device") is None, f"torch.tensor{given} is copied to the device"
        return make(*given, **options)

    monkeypatch.setattr(torch, "tensor", tensor)


NOISES = [f"{name}:{entry.form}" for name in families() for entry in describe(name) if entry.form != "native"]


@pytest.mark.usefixtures("no_numbers_to_the_device")
@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
@pytest.mark.parametrize("noise", NOISES)
def test_a_captured_step_waits_for_nothing(stream: Stream, cell: str, noise: str) -> None:
    learn = get(noise).spread_is_pathwise
    with program_settings():
        bound = make(cell, noise, learn)
        optimizer = build_optimizer("adam", bound.parameters(), 0.01)
        recorder = Recorder()
        train_step = CUDAGraphTrainStep(bound, optimizer, 0.1, record=recorder)
        for number, batch in zip(range(1, WARMUP_STEPS + 3), stream.batches(), strict=False):
            train_step(batch, number)
        assert recorder.step is not None
        with NoWaiting():
            recorder.step()


@pytest.mark.usefixtures("no_numbers_to_the_device")
@pytest.mark.parametrize("name", ["mean-field", "smoothing"])
def test_a_captured_step_of_a_guide_waits_for_nothing(stream: Stream, name: str) -> None:
    with program_settings():
        model = make("tanh").model
        guide = guides.get(name, model)
        bound = PriorAsGuide_ELBO(max_plate_nesting=1)(innovations(model), guide)
        recorder = Recorder()
        train_step = CUDAGraphTrainStep(bound, build_optimizer("adam", bound.parameters(), 0.01), 0.1, record=recorder)
        for number, batch in zip(range(1, WARMUP_STEPS + 3), stream.batches(), strict=False):
            train_step(batch, number)
        assert recorder.step is not None
        with NoWaiting():
            recorder.step()


def test_a_short_last_window_leaves_the_graph_as_it_is() -> None:
    stream, recorder = Stream(torch.randint(WORDS, (4 * 53,)), 4, 5), Recorder()  # the last has 3 steps, none padded
    with program_settings():
        bound = make()
        train_step = CUDAGraphTrainStep(bound, build_optimizer("adam", bound.parameters(), 0.01), record=recorder)
        for _ in range(3):
            loop.train_epoch(train_step, stream.batches())
    assert [batch.targets.shape[1] for batch in stream.batches()][-1] == 3
    assert recorder.recorded == 1


def test_a_loss_that_is_not_finite_never_reaches_the_weights(stream: Stream) -> None:
    with program_settings():
        bound = make()
        optimizer = build_optimizer("adam", bound.parameters(), 0.01)
        train_step = CUDAGraphTrainStep(bound, optimizer, 0.1, record=Recorder())
        batches = list(stream.batches())
        for number, batch in enumerate(batches[:7], start=1):
            train_step(batch, number)
        before = [parameter.detach().clone() for parameter in bound.parameters()]
        assert isinstance(train_step.state, tuple)
        for part in train_step.state:  # the buffers that the captured step reads
            part.fill_(float("nan"))
        for number, batch in enumerate(batches[7:9], start=8):
            train_step(batch, number)
        with pytest.raises(FloatingPointError, match="training, by step 9: the loss is nan"):
            train_step.read()
    for parameter, start in zip(bound.parameters(), before, strict=True):
        assert torch.equal(parameter, start)


def test_only_one_process_on_a_gpu_captures_and_only_what_can_be_held_back(stream: Stream) -> None:
    cpu, gpu, bound = torch.device("cpu"), torch.device("cuda"), make()
    fused, other = (build_optimizer(name, bound.parameters(), 0.01) for name in ("adam", "rmsprop"))
    assert CUDAGraphTrainStep.is_supported(fused, gpu)
    assert not CUDAGraphTrainStep.is_supported(fused, cpu) and not CUDAGraphTrainStep.is_supported(other, gpu)
    assert type(loop.make_train_step(bound, fused)) is TrainStep


def test_sequences_of_their_own_lengths_are_taken_one_by_one() -> None:
    words = torch.randint(WORDS, (6, 8))
    data = Sequences(words[:, :-1], words[:, 1:], torch.tensor([7, 3, 5, 7, 2, 7]))
    with program_settings():
        bound, recorder = make(), Recorder()
        optimizer = build_optimizer("adam", bound.parameters(), 0.01)
        train_step = CUDAGraphTrainStep(bound, optimizer, 0.1, record=recorder)
        for number, batch in enumerate(data.batches(2), start=1):
            train_step(batch, number)
        assert train_step.read().steps == data.num_steps and recorder.recorded == 0
