"""The steps that are timed, by name: each is built from a shape and makes one step per call of ``step()``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from noisin_pyro import Config, PriorAsGuide_ELBO
from noisin_pyro.data import Batch, Corpus, Sequences, Vocabulary
from noisin_pyro.models.noisy_rnn import State
from noisin_pyro.training import Model, Noise, Optimisation, Run
from noisin_pyro.training.build import build_model
from noisin_pyro.training.optimizers import build_optimizer
from noisin_pyro.training.stepper import Stepper, stepper
from timing.baselines import (
    GAMMA,
    CUDAGraphTorchTraining,
    DeterministicRNN,
    NoisyLoop,
    PyroLoop,
    TorchTraining,
    VariationalDropout,
)
from timing.layers import LayerMatmuls, NoisinSoftmax, NoisyLayers, TorchLayers, TorchSoftmax
from timing.shapes import Shape


class NoisinTraining:
    """What ``noisin train`` builds, and the step that it takes on each batch.

    Args:
        shape, batches, device: sizes of the step, the data and where they are.
        model: options of :class:`Model` that the shape does not give.
        cuda_graph: whether steps on a GPU are captured as a CUDA graph, as ``noisin train`` does.
        noise: options of :class:`Noise`.
    """

    def __init__(
        self,
        shape: Shape,
        batches: Iterable[Batch],
        device: torch.device,
        model: Mapping[str, Any] | None = None,
        cuda_graph: bool = True,
        **noise: Any,
    ) -> None:
        sizes: dict[str, Any] = {"cell": shape.cell, "num_layers": shape.layers, "hidden_size": shape.units}
        config = Config(
            model=Model(**sizes | dict(model or {})),
            noise=Noise(**noise),
            optimisation=Optimisation(particles=shape.particles),
            run=Run(precision=shape.precision),  # type: ignore[arg-type]
        )
        options = config.optimisation
        self.model = build_model(config, _empty_corpus(shape)).to(device)
        elbo = PriorAsGuide_ELBO(num_particles=options.particles, bound=options.bound, max_plate_nesting=1)
        self.bound = elbo(self.model)
        self.optimizer = build_optimizer(
            options.optimizer, self.bound.parameters(), options.learning_rate, options.average_after
        )
        self.stepper = (stepper if cuda_graph else Stepper)(self.bound, self.optimizer, options.clip)
        self.batches = itertools.cycle(batches)
        self.nats = math.nan

    @property
    def state(self) -> State | None:
        """The state for the next batch."""
        return self.stepper.state

    def step(self) -> float:
        """Forward, backward, clipping and update; returns the loss in nats per time step that was read last."""
        self.stepper.take(next(self.batches), 1)
        if self.stepper.batches >= self.stepper.every:  # a captured step's loss is read only once in a while
            read = self.stepper.read()
            self.nats = read.nats / read.steps
        return self.nats


def _empty_corpus(shape: Shape) -> Corpus:
    """A corpus without data, from which a model takes its input and output sizes."""
    if shape.is_music:
        zeros = torch.zeros(1, 1, shape.outputs)
        part: Any = Sequences(zeros, zeros)
        return Corpus("music", part, part, part, None)
    words = Vocabulary(["<eos>", *map(str, range(1, shape.outputs))])
    part = torch.zeros(1, dtype=torch.long)
    return Corpus("text", part, part, part, words)


def _torch(network: type[DeterministicRNN], training: type[TorchTraining] = TorchTraining) -> Callable[..., Any]:
    return lambda shape, batches, device: training(network(shape).to(device), batches)


def _noisin(**options: Any) -> Callable[..., Any]:
    return partial(NoisinTraining, **options)


def _part(kind: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return lambda shape, batches, device: kind(shape, device, **options)


MULTIPLICATIVE = "gaussian:multiplicative"
TRAINING: dict[str, Callable[..., Any]] = {
    "plain": _torch(DeterministicRNN),
    "ours-noise-free": _noisin(spread=0.0),
    "ours": _noisin(spread=GAMMA),
    "ours-learned": _noisin(spread=GAMMA, learn_spread=True),
    "ours-multiplicative": _noisin(family=MULTIPLICATIVE, spread=0.5),
    "ours-dropout": _noisin(spread=0.0, model={"regularizer": "variational-dropout"}),
    "ours-bfloat16": _noisin(spread=GAMMA, model={"products": "bfloat16"}),
    "ours-uncaptured": _noisin(spread=GAMMA, cuda_graph=False),
    "plain-captured": _torch(DeterministicRNN, CUDAGraphTorchTraining),
    "loop": _torch(NoisyLoop),
    "variational-dropout": _torch(VariationalDropout),
    "trace-elbo": _torch(PyroLoop),
}
LAYERS: dict[str, Callable[..., Any]] = {
    "nn": _part(TorchLayers),
    "noise-free": _part(NoisyLayers, spread=0.0),
    "additive": _part(NoisyLayers, spread=GAMMA),
    "additive-learned": _part(NoisyLayers, spread=GAMMA, learn_spread=True),
    "multiplicative": _part(NoisyLayers, noise=MULTIPLICATIVE, spread=0.5),
    "additive-bfloat16": _part(NoisyLayers, spread=GAMMA, products="bfloat16"),
    "multiplicative-bfloat16": _part(NoisyLayers, noise=MULTIPLICATIVE, spread=0.5, products="bfloat16"),
    "matmuls": _part(LayerMatmuls),
    "additive-loop": _part(NoisyLayers, spread=GAMMA, engine="loop"),
    "additive-fused": _part(NoisyLayers, spread=GAMMA, engine="kernel"),
    "additive-scan": _part(NoisyLayers, spread=GAMMA, engine="scan"),
    "multiplicative-loop": _part(NoisyLayers, noise=MULTIPLICATIVE, spread=0.5, engine="loop"),
    "multiplicative-scan": _part(NoisyLayers, noise=MULTIPLICATIVE, spread=0.5, engine="scan"),
}
SOFTMAX: dict[str, Callable[..., Any]] = {
    "cross-entropy": _part(TorchSoftmax),
    "softmax": _part(NoisinSoftmax),
    "softmax-bfloat16": _part(NoisinSoftmax, precision="bfloat16"),
}
CONTESTANTS = TRAINING | LAYERS | SOFTMAX
GPU_ONLY = ("plain-captured", "ours-uncaptured")
TITLES = {
    "plain": "deterministic, `nn.RNN` or `nn.LSTM`",
    "plain-captured": "the same, captured as a CUDA graph",
    "ours-noise-free": "ours, noise-free (γ = 0)",
    "ours": "ours, additive, γ fixed",
    "ours-uncaptured": "the same, without a CUDA graph",
    "ours-learned": "ours, additive, γ learned",
    "ours-multiplicative": "ours, multiplicative",
    "ours-dropout": "ours, variational dropout instead of noise",
    "ours-bfloat16": "ours, additive, matrix products in bfloat16",
    "loop": "PyTorch loop with Gaussian noise",
    "variational-dropout": "PyTorch loop with variational dropout",
    "trace-elbo": "Pyro, one site per time step, `Trace_ELBO`",
    "nn": "`nn.RNN` or `nn.LSTM`",
    "noise-free": "`NoisyRNN`, noise-free (γ = 0)",
    "additive": "`NoisyRNN`, additive, γ fixed",
    "additive-learned": "`NoisyRNN`, additive, γ learned",
    "multiplicative": "`NoisyRNN`, multiplicative",
    "additive-bfloat16": "`NoisyRNN`, additive, matrix products in bfloat16",
    "multiplicative-bfloat16": "`NoisyRNN`, multiplicative, matrix products in bfloat16",
    "matmuls": "the matrix products of a layer alone",
    "additive-loop": "`NoisyRNN`, additive, backend loop",
    "additive-fused": "`NoisyRNN`, additive, backend fused",
    "additive-scan": "`NoisyRNN`, additive, backend scan",
    "multiplicative-loop": "`NoisyRNN`, multiplicative, backend loop",
    "multiplicative-scan": "`NoisyRNN`, multiplicative, backend scan",
    "cross-entropy": "`nn.Linear` and `cross_entropy`",
    "softmax": "ours",
    "softmax-bfloat16": "ours, matrix products in bfloat16",
}


def build(name: str, shape: Shape, batches: Sequence[Batch], device: torch.device, seed: int = 0) -> Any:
    """Build a contestant with weights drawn from ``seed``."""
    torch.manual_seed(seed)
    return CONTESTANTS[name](shape, batches, device)
