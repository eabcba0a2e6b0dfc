"""Amortized guides over the innovations: noise from the prior, transformed by functions of x."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.nn import PyroModule
from pyro.nn.module import pyro_method
from torch import Tensor, nn
from torch.distributions import Transform, biject_to

from noisin_pyro.inference.guides.affine import Head, push
from noisin_pyro.inference.guides.encoder import Encoder
from noisin_pyro.models import NoisyRNN, SequenceModel, States, StepwiseRNN, real_steps
from noisin_pyro.models.noisy_rnn import State
from noisin_pyro.noise import biject_to_support

Layers = dict[int, Tensor]  # a tensor for each noisy layer, by its index
Heads = dict[int, Head]

_NUMBERS = itertools.count(1)


class Guide(PyroModule):
    """q(ε_{1:T} | x): at each step and layer, noise from the prior, transformed by an affine map of its coordinates.

    It is a guide of ``innovations(model)`` and takes the model's arguments. (With native beta noise, which has no
    innovations, it is a guide of z.) It starts at the prior, so its first ELBO equals that without a guide. At padded
    steps the noise keeps its prior. The draws before the map are auxiliary sites, ``z_1_before`` and so on. Weights and
    γ that have priors are drawn from their priors.

    Args:
        name: name of the guide in tables.
        model: the model itself, not a view of it.
        bidirectional: whether the map at step t is a function of x_{1:T}, or of x_{1:t} only.
        uses_states: whether it is also a function of z_{t-1} and c_{t-1} of every layer, z_t of the layers below, and
            the mean of z_t.
        covariance: of a layer's units at one step, given the past: ``"diagonal"`` or ``"full"``.
        hidden_size: number of units of the encoder's GRUs and of each network that computes an affine map (default:
            the model's hidden size).
    """

    def __init__(
        self,
        name: str,
        model: SequenceModel,
        bidirectional: bool,
        uses_states: bool,
        covariance: str = "diagonal",
        hidden_size: int | None = None,
    ) -> None:
        # a unique name: under a shared one, SVI would find an earlier guide's parameters in Pyro's global store
        super().__init__(f"guide_{next(_NUMBERS)}")
        self.__name__ = name
        rnn = model.rnn
        size = rnn.hidden_size if hidden_size is None else hidden_size
        self._model = (model,)  # in a tuple, so that it is not a submodule and the guide does not own its parameters
        self.uses_states = uses_states
        self.encoder = Encoder(model, size, bidirectional)
        self.heads = nn.ModuleDict()
        state_size = rnn.num_layers * rnn.hidden_size * (1 + rnn.cell.has_memory)
        for layer in rnn.noisy_layers:
            units = rnn.hidden_size if layer else rnn.input_size
            states = (state_size + units) * uses_states
            dimension, constrained = _coordinates(rnn, units)
            self.heads[str(layer)] = Head(
                self.encoder.output_size, states, size, dimension, not constrained, covariance
            )
            state_size += units
        like = next(rnn.parameters())
        self.to(like.device, like.dtype)

    @property
    def model(self) -> SequenceModel:
        """The model of this guide."""
        return self._model[0]

    def head(self, layer: int) -> Head:
        """The network that computes the affine map of a layer."""
        head = self.heads[str(layer)]
        assert isinstance(head, Head)
        return head

    def forward(
        self,
        inputs: Tensor,
        targets: Tensor | None = None,
        state: State | None = None,
        lengths: Tensor | None = None,
        size: int | None = None,
        mask: Tensor | None = None,
    ) -> None:
        """Sample the noise of every layer. The arguments and errors are those of :class:`SequenceModel`.

        Raises:
            ValueError: no targets, on which the guide conditions.
        """
        if targets is None:
            raise ValueError(
                "targets must be given, since a guide conditions on x; got None; to sample x, run the model"
            )
        rnn = self.model.rnn
        x, walk = _read(self.model, inputs, state)
        self.model._check_targets(targets, x, mask)
        features = self.encoder(x.detach(), targets, lengths, mask)
        heads = {layer: self.head(layer) for layer in rnn.noisy_layers}  # once: Pyro records every access to a module
        contexts = {layer: head.of_context(features) for layer, head in heads.items()}
        real = None if lengths is None else real_steps(lengths.to(x.device), x.shape[-2])
        with self.model.sequences(x.shape[-3], size):
            before = {layer: _draw_before(rnn, layer, walk) for layer in rnn.noisy_layers if rnn.noise.has_innovations}
            if self.uses_states or not before:
                moved, stretch = _Sequential(rnn.name, walk, heads, self.uses_states, before, contexts, real).run()
            else:
                moved, stretch = _parallel(walk, heads, before, contexts, real)
            for layer in rnn.noisy_layers:
                density: Any = -stretch[layer].sum(-1)
                law = dist.Delta(moved[layer], log_density=density, event_dim=2)
                pyro.sample(f"{rnn.name}_{layer}{'_noise' if before else ''}", law)


def _parallel(
    walk: StepwiseRNN, heads: Heads, before: Layers, contexts: Layers, real: Tensor | None
) -> tuple[Layers, Layers]:
    """ε_{1:T} of each layer and log |dε / dε_before| of each step, if no map depends on the states."""
    pushed = {
        layer: push(noise, biject_to_support(_law(walk, layer)), heads[layer](contexts[layer], None, real))
        for layer, noise in before.items()
    }
    return {layer: noise for layer, (noise, _) in pushed.items()}, {layer: s for layer, (_, s) in pushed.items()}


@dataclass(frozen=True)
class _Sequential:
    """Transforms the noise step by step, all layers together, if maps depend on the states."""

    name: str
    walk: StepwiseRNN
    heads: Heads
    uses_states: bool
    before: Layers
    contexts: Layers
    real: Tensor | None

    def run(self) -> tuple[Layers, Layers]:
        """ε_{1:T} of each layer (z of native noise), and log |dε / dε_before| of each step."""
        spaces = {layer: biject_to_support(_law(self.walk, layer, per_step=True)) for layer in self.before}
        noises = {layer: noise.unbind(-2) for layer, noise in self.before.items()}
        contexts = {layer: context.unbind(-2) for layer, context in self.contexts.items()}
        moved: dict[int, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in self.contexts}
        states = self.walk.start
        for t in range(self.walk.inputs.shape[-2]):
            below: list[Tensor] = []

            def draw(layer: int, mean: Tensor, t: int, states: States, below: list[Tensor]) -> Tensor:
                if self.before:
                    space, noise = spaces[layer], noises[layer][t]
                else:
                    space, noise = self._native(layer, mean, t)
                features = self._features(noise, mean, states, below) if self.uses_states else None
                real = None if self.real is None else self.real[..., t]
                pushed = push(noise, space, self.heads[layer](contexts[layer][t], features, real))
                moved[layer].append(pushed)
                z = mean + self.walk.scale(layer, mean) * pushed[0] if self.before else pushed[0]
                below.append(z)
                return z

            _, states = self.walk.step(t, states, partial(draw, t=t, states=states, below=below))
        return (
            {layer: torch.stack([noise for noise, _ in steps], -2) for layer, steps in moved.items()},
            {layer: torch.stack([stretch for _, stretch in steps], -1) for layer, steps in moved.items()},
        )

    @staticmethod
    def _features(noise: Tensor, mean: Tensor, states: States, below: list[Tensor]) -> Tensor:
        """z_{t-1} and c_{t-1} of every layer, z_t of those below, and the mean, expanded over particles."""
        parts = [*states.z, *(c for c in states.c if c is not None), *below, mean]
        return torch.cat([part.expand(*noise.shape[:-1], -1) for part in parts], -1)

    def _native(self, layer: int, mean: Tensor, t: int) -> tuple[Transform, Tensor]:
        """The unconstrained coordinates of z_t's support, and z_t drawn from its prior, which depends on the mean."""
        law = self.walk.law(layer, mean)
        site = f"{self.name}_{layer}_before_{t + 1}"
        masked = law if self.real is None else law.mask(self.real[..., t])
        return biject_to(law.support), pyro.sample(site, masked, infer={"is_auxiliary": True})


@pyro_method  # in the model's context, so that weights and γ with priors have their sites' names
def _read(model: SequenceModel, inputs: Tensor, state: State | None) -> tuple[Tensor, StepwiseRNN]:
    """The inputs of the first layer, and the network that steps along them."""
    x = model.embed(inputs)
    return x, model.rnn.stepwise(x, state)


def _draw_before(rnn: NoisyRNN, layer: int, walk: StepwiseRNN) -> Tensor:
    """ε_{1:T} from its prior, ``(..., B, T, H)``."""
    law, (*batch, steps, _) = _law(walk, layer), walk.inputs.shape
    batch_shape = torch.broadcast_shapes(law.batch_shape, (*batch, steps))
    path = law.expand(batch_shape).to_event(1)
    return pyro.sample(f"{rnn.name}_{layer}_before", path, infer={"is_auxiliary": True})


def _law(walk: StepwiseRNN, layer: int, per_step: bool = False) -> TorchDistribution:
    """The law of ε over a layer's units, with batch shape ``(..., B)`` if ``per_step``, else with a time axis of size 1
    behind it."""
    spread = walk.spreads[layer]
    assert spread is not None
    units = walk.weights[0].hh.shape[-1] if layer else walk.inputs.shape[-1]
    return walk.family.law(spread if per_step else spread.unsqueeze(-2), units)


def _coordinates(rnn: NoisyRNN, units: int) -> tuple[int, bool]:
    """The number of unconstrained coordinates of ``units`` units of noise, and whether its support is constrained."""
    if not rnn.noise.has_innovations:
        return units, True
    law = rnn.noise.law(torch.ones(()), units)
    (size,) = biject_to_support(law).inverse_shape((units,))
    return size, law.support is not constraints.real_vector
