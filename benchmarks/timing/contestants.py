"""The steps that are timed, by name: each is built from a shape and makes one step per call of ``step()``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch

from noisin_pyro import Config, PriorAsGuide_ELBO
from noisin_pyro.data import Batch, Corpus, Sequences, Vocabulary
from noisin_pyro.training import Model, Noise, Optimization, Run
from noisin_pyro.training.build import build_model
from noisin_pyro.training.optim import build_optimizer
from noisin_pyro.training.train_step import TrainStep, make_train_step
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
            optimization=Optimization(num_particles=shape.particles),
            run=Run(precision=shape.precision),  # type: ignore[arg-type]
        )
        options = config.optimization
        self.model = build_model(config, _empty_corpus(shape)).to(device)
        elbo = PriorAsGuide_ELBO(num_particles=options.num_particles, bound=options.bound, max_plate_nesting=1)
        self.bound = elbo(self.model)
        self.optimizer = build_optimizer(
            options.optimizer, self.bound.parameters(), options.learning_rate, options.average_after
        )
        self.train_step = (make_train_step if cuda_graph else TrainStep)(self.bound, self.optimizer, options.clip)
        self.batches = itertools.cycle(batches)
        self.nats = math.nan

    def step(self) -> float:
        """Forward, backward, clipping and update; returns the loss in nats per time step that was read last."""
        self.train_step(next(self.batches), 1)
        if self.train_step.batches >= self.train_step.read_every:  # a captured step's loss is read only once in a while
            read = self.train_step.read()
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


class Contestant(NamedTuple):
    """A title for tables, and a function of shape, batches and device that builds it."""

    title: str
    build: Callable[..., Any]


def _torch(network: type[DeterministicRNN], training: type[TorchTraining] = TorchTraining) -> Callable[..., Any]:
    return lambda shape, batches, device: training(network(shape).to(device), batches)


def _noisin(**options: Any) -> Callable[..., Any]:
    return partial(NoisinTraining, **options)


def _part(kind: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    return lambda shape, batches, device: kind(shape, device, **options)


ADDITIVE: dict[str, Any] = {"spread": GAMMA}
MULTIPLICATIVE: dict[str, Any] = {"noise": "gaussian:multiplicative", "spread": 0.5}
TRAINING: dict[str, Contestant] = {
    "plain": Contestant("deterministic, `nn.RNN` or `nn.LSTM`", _torch(DeterministicRNN)),
    "ours-noise-free": Contestant("ours, noise-free (γ = 0)", _noisin(spread=0.0)),
    "ours": Contestant("ours, additive, γ fixed", _noisin(spread=GAMMA)),
    "ours-learned": Contestant("ours, additive, γ learned", _noisin(spread=GAMMA, learn_spread=True)),
    "ours-multiplicative": Contestant(
        "ours, multiplicative", _noisin(noise=MULTIPLICATIVE["noise"], spread=MULTIPLICATIVE["spread"])
    ),
    "ours-dropout": Contestant(
        "ours, variational dropout instead of noise", _noisin(spread=0.0, model={"regularizer": "variational-dropout"})
    ),
    "ours-bfloat16": Contestant(
        "ours, additive, matrix products in bfloat16", _noisin(spread=GAMMA, model={"matmul_precision": "bfloat16"})
    ),
    "ours-uncaptured": Contestant(
        "ours, additive, γ fixed, without a CUDA graph", _noisin(spread=GAMMA, cuda_graph=False)
    ),
    "plain-captured": Contestant(
        "deterministic, captured as a CUDA graph", _torch(DeterministicRNN, CUDAGraphTorchTraining)
    ),
    "loop": Contestant("PyTorch loop with Gaussian noise", _torch(NoisyLoop)),
    "variational-dropout": Contestant("PyTorch loop with variational dropout", _torch(VariationalDropout)),
    "trace-elbo": Contestant("Pyro, one site per time step, `Trace_ELBO`", _torch(PyroLoop)),
}
NOISY_LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "noise-free": ("noise-free (γ = 0)", {"spread": 0.0}),
    "additive": ("additive, γ fixed", ADDITIVE),
    "additive-learned": ("additive, γ learned", ADDITIVE | {"learn_spread": True}),
    "multiplicative": ("multiplicative", MULTIPLICATIVE),
    "additive-bfloat16": ("additive, matrix products in bfloat16", ADDITIVE | {"matmul_precision": "bfloat16"}),
    "multiplicative-bfloat16": (
        "multiplicative, matrix products in bfloat16",
        MULTIPLICATIVE | {"matmul_precision": "bfloat16"},
    ),
    "additive-loop": ("additive, backend loop", ADDITIVE | {"backend": "loop"}),
    "additive-fused": ("additive, backend fused", ADDITIVE | {"backend": "fused"}),
    "additive-scan": ("additive, backend scan", ADDITIVE | {"backend": "scan"}),
    "multiplicative-loop": ("multiplicative, backend loop", MULTIPLICATIVE | {"backend": "loop"}),
    "multiplicative-scan": ("multiplicative, backend scan", MULTIPLICATIVE | {"backend": "scan"}),
}
LAYERS: dict[str, Contestant] = {
    "nn": Contestant("`nn.RNN` or `nn.LSTM`", _part(TorchLayers)),
    **{
        name: Contestant(f"`NoisyRNN`, {title}", _part(NoisyLayers, **options))
        for name, (title, options) in NOISY_LAYERS.items()
    },
    "matmuls": Contestant("the matrix products of a layer alone", _part(LayerMatmuls)),
}
SOFTMAX: dict[str, Contestant] = {
    "cross-entropy": Contestant("`nn.Linear` and `cross_entropy`", _part(TorchSoftmax)),
    "softmax": Contestant("ours", _part(NoisinSoftmax)),
    "softmax-bfloat16": Contestant("ours, matrix products in bfloat16", _part(NoisinSoftmax, precision="bfloat16")),
}
CONTESTANTS = TRAINING | LAYERS | SOFTMAX
GPU_ONLY = ("plain-captured", "ours-uncaptured")


def build(name: str, shape: Shape, batches: Sequence[Batch], device: torch.device, seed: int = 0) -> Any:
    """Build a contestant with weights drawn from ``seed``."""
    torch.manual_seed(seed)
    return CONTESTANTS[name].build(shape, batches, device)
