"""All layers one time step at a time, as guides and particle filters need them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from pyro.distributions import TorchDistribution
from torch import Tensor

from noisin_pyro.models.noisy_path import step_law
from noisin_pyro.noise import Family
from noisin_pyro.recurrence.cells import Cell, Weights
from noisin_pyro.recurrence.matmul import linear

Draw = Callable[[int, Tensor], Tensor]


class States(NamedTuple):
    """What feeds back into each layer, the lowest first: z_{t-1} and the LSTM's c_{t-1}, each ``(..., B, H)``."""

    z: tuple[Tensor, ...]
    c: tuple[Tensor | None, ...]


@dataclass(frozen=True)
class StepwiseRNN:
    """A :class:`NoisyRNN` on given inputs, one time step at a time; returned by ``NoisyRNN.stepwise``.

    Attributes:
        cell, family, feedback: those of the network.
        weights: of each layer.
        spreads: γ of the inputs and of each layer, ``(..., 1)``; None where there is no noise.
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
        """p(z_{l,t} | z_{t-1}, z_{<l,t}): the noise around the mean ``(..., B, H)`` of layer l; 0 is the inputs."""
        spread = self.spreads[layer]
        assert spread is not None
        return step_law(self.family, spread, mean)

    def noise_law(self, layer: int, per_step: bool = True) -> TorchDistribution:
        """The law of ε over the units of a layer, for families that have innovations.

        Args:
            per_step: whether its batch shape is ``(...)`` as at one step, or has a time axis of size 1 behind it.
        """
        spread = self.spreads[layer]
        assert spread is not None
        units = self.weights[0].hh.shape[-1] if layer else self.inputs.shape[-1]
        return self.family.law(spread if per_step else spread.unsqueeze(-2), units)

    def scale(self, layer: int, mean: Tensor) -> Tensor:
        """dz/dε there, for families with z = mean + scale · ε."""
        spread = self.spreads[layer]
        assert spread is not None
        return self.family.scale(mean, spread)

    def step(self, t: int, states: States, draw: Draw) -> tuple[Tensor, States]:
        """All layers at step t (from 0), the lowest first.

        Args:
            states: those after step t - 1. Particles stand in front, also where the inputs have none.
            draw: returns z_{l,t} given the layer's number l and the mean; called for noisy layers only.

        Returns:
            the last layer's output ``(..., B, H)``, and the states that feed back.
        """
        x = self.inputs[..., t, :] if self.spreads[0] is None else draw(0, self.inputs[..., t, :])
        ends = []
        for layer, (weights, z, c) in enumerate(zip(self.weights, *states, strict=True), start=1):
            is_shared = layer == 1 and self.spreads[0] is None  # particles share the inputs
            a = self._input_projections[t] if is_shared else _project(x, weights.ih, weights.bias_ih)
            p = _project(z, weights.hh, weights.bias_hh)
            mean, c = self.cell.step(a, p, z, c)
            x = mean if self.spreads[layer] is None else draw(layer, mean)
            ends.append((x if self.feedback else mean, c))
        z_next, c_next = zip(*ends, strict=True)
        return x, States(z_next, c_next)

    @cached_property
    def _input_projections(self) -> tuple[Tensor, ...]:
        """W_ih x + b_ih of the first layer at each step, computed for all steps at once."""
        first = self.weights[0]
        return linear(self.inputs, first.ih, first.bias_ih).unbind(-2)


def _project(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if weight.dim() == 2 and bias.dim() == 1:
        return linear(x, weight, bias)
    return linear(x.unsqueeze(-2), weight, bias).squeeze(-2)
