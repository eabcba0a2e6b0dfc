"""What is said of a run whose numbers are no longer finite: where it began, and every layer's spread."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from noisin_pyro.models import SequenceModel
from noisin_pyro.models.noisy_rnn import State


def require_finite(
    nats: float, model: SequenceModel, where: str, state: Callable[[], State | None] = lambda: None
) -> None:
    """Refuse a loss that is not finite, before it reaches the weights.

    Args:
        where: the epoch and step, or whatever else the loss is of.
        state: gives where the layers ended as this loss was computed, if that is known.

    Raises:
        FloatingPointError: naming the first layer that is not finite, and γ.
    """
    if not math.isfinite(nats):
        raise FloatingPointError(
            f"{where}: the loss is {nats}, {_origin(model, state())} ({spreads(model)}); take a smaller learning rate "
            "or spread, or clip the gradient at a smaller norm"
        )


def require_finite_weights(model: SequenceModel, where: str, guide: nn.Module | None = None) -> None:
    """Refuse weights that are not finite, the guide's too, which are not worth keeping.

    Raises:
        FloatingPointError: naming the first, and γ.
    """
    if (name := _spoilt(model) or _spoilt(guide)) is not None:
        raise FloatingPointError(
            f"{where}: {name} is no longer finite ({spreads(model)}); take a smaller rate, or clip the gradient"
        )


def spreads(model: SequenceModel) -> str:
    """γ of each layer now, the inputs' first if they have any."""
    told = model.rnn.spreads()
    names = [f"gamma_{layer}" for layer in range("gamma_0" not in told, model.rnn.num_layers + 1)]
    return "spread of each layer: " + ", ".join(f"{name} = {told.get(name, 0.0):.4g}" for name in names)


def _origin(model: SequenceModel, state: State | None) -> str:
    if state is None:
        name = _spoilt(model)
        return "though all weights are finite" if name is None else f"as {name} is not finite"
    parts = (state,) if isinstance(state, Tensor) else state
    for layer, ends in enumerate(zip(*parts, strict=True), start=1):
        if not all(end.isfinite().all() for end in ends):
            return f"first in the states of layer {layer}"
    return "first in the emission: the states of all layers are finite"


def _spoilt(module: nn.Module | None) -> str | None:
    named = () if module is None else module.named_parameters()
    return next((name for name, value in named if not value.isfinite().all()), None)
