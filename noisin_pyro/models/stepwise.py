"""The layers together, one time step after the other: what a guide or a particle filter walks along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pyro.distributions import TorchDistribution
from torch import Tensor

from noisin_pyro.models.cells import Cell
from noisin_pyro.models.kernels import Weights
from noisin_pyro.models.path import step_law
from noisin_pyro.models.scan import linear
from noisin_pyro.noise import Family

Draw = Callable[[int, Tensor], Tensor]


class States(NamedTuple):
    """What feeds back into each layer: z_{t-1} and, of the LSTM, c_{t-1}, each ``(..., B, H)``, input's layer first."""

    z: tuple[Tensor, ...]
    c: tuple[Tensor | None, ...]


@dataclass(frozen=True)
class Steps:
    """A walk of a :class:`NoisyRNN` along given inputs; ``NoisyRNN.steps`` makes it.

    Attributes:
        cell, family, feedback: the network's own.
        weights: of each layer.
        spreads: γ of the inputs and of each layer, ``(..., 1)``; None where nothing is drawn.
        inputs: ``(..., B, T, I)``.
        start: the states before the first step.
    """

    cell: Cell
    family: Family
    feedback: bool
    weights: Sequence[Weights]
    spreads: Sequence[Tensor | None]
    inputs: Tensor
    start: States

    def law(self, layer: int, mean: Tensor) -> TorchDistribution:
        """The noise around the mean ``(..., B, H)`` of one layer (0 is the inputs): p(z_{l,t} | z_{t-1}, z_{<l,t})."""
        spread = self.spreads[layer]
        assert spread is not None
        return step_law(self.family, spread, mean)

    def scale(self, layer: int, mean: Tensor) -> Tensor:
        """dz/dε there, for families whose noise has a law of its own (z = mean + scale·ε)."""
        spread = self.spreads[layer]
        assert spread is not None
        return self.family.scale(mean, spread)

    def step(self, t: int, states: States, draw: Draw) -> tuple[Tensor, States]:
        """All layers at step t (from 0), the lowest first.

        Args:
            states: those after step t - 1; of more particles than the inputs have, if they stand in front.
            draw: z_{l,t} from the layer's number l and the mean; called for the noisy layers alone.

        Returns:
            the last layer's output ``(..., B, H)``, and the states that feed back.
        """
        x = self.inputs[..., t, :]
        if self.spreads[0] is not None:
            x = draw(0, x)
        ends = []
        for layer, (weights, z, c) in enumerate(zip(self.weights, *states, strict=True), start=1):
            a, r = _project(x, weights.ih, weights.bias_ih), _project(z, weights.hh, weights.bias_hh)
            mean, c = self.cell.step(a, r, z, c)
            x = mean if self.spreads[layer] is None else draw(layer, mean)
            ends.append((x if self.feedback else mean, c))
        z_next, c_next = zip(*ends, strict=True)
        return x, States(z_next, c_next)


def _project(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return linear(x.unsqueeze(-2), weight, bias).squeeze(-2)
