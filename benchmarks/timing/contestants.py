"""All contestants by name: from a shape to a function that makes one training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from noisin_pyro.data import Batch
from timing.ours import OurTraining
from timing.pyro_program import RepeatedPrior
from timing.recurrence import NoisyLayer, Products, TorchLayer
from timing.shapes import Shape
from timing.softmax import OurSoftmax, TorchSoftmax
from timing.torch_networks import GAMMA, CapturedTraining, Loop, Plain, TorchTraining, VariationalDropout

MULTIPLICATIVE: dict[str, Any] = {"family": "gaussian:multiplicative", "spread": 0.5}


def _torch(network: type[Plain], training: type[TorchTraining] = TorchTraining) -> Callable[..., Any]:
    return lambda shape, batches, device: training(network(shape).to(device), batches)


def _ours(**options: Any) -> Callable[..., Any]:
    return partial(OurTraining, **options)


def _layer(kind: type[TorchLayer], **options: Any) -> Callable[..., Any]:
    return lambda shape, batches, device: kind(shape, device, **options)


TRAINING: dict[str, Callable[..., Any]] = {
    "plain": _torch(Plain),
    "ours": _ours(spread=GAMMA),
    "ours-learned": _ours(spread=GAMMA, learn_spread=True),
    "ours-multiplicative": _ours(**MULTIPLICATIVE),
    "ours-dropout": _ours(spread=0.0, model={"regularizer": "variational-dropout"}),
    "ours-bfloat16": _ours(spread=GAMMA, model={"products": "bfloat16"}),
    "plain-captured": _torch(Plain, CapturedTraining),
    "loop": _torch(Loop),
    "variational-dropout": _torch(VariationalDropout),
    "trace-elbo": _torch(RepeatedPrior),
}
LAYERS: dict[str, Callable[..., Any]] = {
    "nn": _layer(TorchLayer),
    "additive": _layer(NoisyLayer, spread=GAMMA),
    "additive-learned": _layer(NoisyLayer, spread=GAMMA, learn_spread=True),
    "multiplicative": _layer(NoisyLayer, **MULTIPLICATIVE),
    "additive-bfloat16": _layer(NoisyLayer, spread=GAMMA, products="bfloat16"),
    "multiplicative-bfloat16": _layer(NoisyLayer, **MULTIPLICATIVE, products="bfloat16"),
    "products": lambda shape, batches, device: Products(shape, device),
}
ENGINES: dict[str, Callable[..., Any]] = {
    **{f"additive-{way}": _layer(NoisyLayer, spread=GAMMA, engine=way) for way in ("loop", "kernel", "scan")},
    **{f"multiplicative-{way}": _layer(NoisyLayer, **MULTIPLICATIVE, engine=way) for way in ("loop", "scan")},
}
SOFTMAX: dict[str, Callable[..., Any]] = {
    "cross-entropy": lambda shape, batches, device: TorchSoftmax(shape, device),
    "softmax": lambda shape, batches, device: OurSoftmax(shape, device),
    "softmax-bfloat16": lambda shape, batches, device: OurSoftmax(shape, device, "bfloat16"),
}
PARTS = LAYERS | ENGINES | SOFTMAX
CONTESTANTS = TRAINING | PARTS
GPU_ONLY = ("plain-captured",)
TITLES = {
    "plain": "deterministic, `nn.RNN` or `nn.LSTM`",
    "plain-captured": "the same as one CUDA graph",
    "ours": "ours, additive, γ fixed",
    "ours-learned": "ours, additive, γ learned",
    "ours-multiplicative": "ours, multiplicative",
    "ours-dropout": "ours, variational dropout in place of noise",
    "ours-bfloat16": "ours, additive, products in bfloat16",
    "loop": "PyTorch loop with Gaussian noise",
    "variational-dropout": "PyTorch loop with variational dropout",
    "trace-elbo": "Pyro, a site a step, `Trace_ELBO`",
    "nn": "`nn.RNN` or `nn.LSTM`",
    "additive": "`NoisyRNN`, additive, γ fixed",
    "additive-learned": "`NoisyRNN`, additive, γ learned",
    "multiplicative": "`NoisyRNN`, multiplicative",
    "additive-bfloat16": "`NoisyRNN`, additive, products in bfloat16",
    "multiplicative-bfloat16": "`NoisyRNN`, multiplicative, products in bfloat16",
    "products": "the products of a layer by hand, and nothing else",
    **{name: f"`NoisyRNN`, {name.replace('-', ', engine ')}" for name in ENGINES},
    "cross-entropy": "`nn.Linear` and `cross_entropy`",
    "softmax": "ours",
    "softmax-bfloat16": "ours, products in bfloat16",
}


def build(name: str, shape: Shape, batches: Sequence[Batch], device: torch.device, seed: int = 0) -> Any:
    """A contestant; its ``step()`` makes one step."""
    torch.manual_seed(seed)
    return CONTESTANTS[name](shape, batches, device)
