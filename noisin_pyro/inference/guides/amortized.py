"""Amortized guides over the innovations: noise from the prior, transformed by functions of x."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import Transform, biject_to

from noisin_pyro.inference.guides.affine import Head, push
from noisin_pyro.inference.guides.encoder import Encoder
from noisin_pyro.models import NoisyRNN, SequenceModel, States, StepwiseRNN, real_steps, scored_steps
from noisin_pyro.models._module import in_context
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

    @property
    def width(self) -> int:
        """Elements of the largest tensor that one sample of one sequence needs at one step."""
        return max(self.head(layer).width for layer in self.model.rnn.noisy_layers)

    def head(self, layer: int) -> Head:
        """The network that computes the affine map of a layer."""
        head = self.heads[str(layer)]
        assert isinstance(head, Head)
        return head

    @in_context
    def along(
        self, walk: StepwiseRNN, targets: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None
    ) -> GuideSteps:
        """The guide's maps along a window, given x.

        Args:
            walk: the model's network along the window.
            targets: x_{1:T}, ``(..., B, T)`` or ``(..., B, T, D)``.
            lengths: ``(B,)``, or None if all are T.
            mask: False where a target is missing, ``(..., B, T)``.
        """
        targets = self.model.emission.standardized(targets)
        # padding may be NaN as well as missing targets
        scored = scored_steps(lengths, mask, walk.inputs.shape[-2])
        features = self.encoder(walk.inputs.detach(), targets, lengths, scored)
        # read once: Pyro records every access to a module
        heads = {layer: self.head(layer) for layer in self.model.rnn.noisy_layers}
        contexts = {layer: head.of_context(features) for layer, head in heads.items()}
        real = None if lengths is None else real_steps(lengths.to(features.device), features.shape[-2])
        return GuideSteps(walk, heads, contexts, self.uses_states, real)

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
        walk = _read(self.model, inputs, state)
        self.model._checked_targets(targets, walk.inputs, mask)
        steps = self.along(walk, targets, lengths, mask)
        with self.model.sequences(walk.inputs.shape[-3], size):
            before = {layer: _draw_before(rnn, layer, walk) for layer in rnn.noisy_layers if rnn.noise.has_innovations}
            if self.uses_states or not before:
                moved, stretch = _sequential(rnn.name, steps, before)
            else:
                moved, stretch = _parallel(steps, before)
            for layer in rnn.noisy_layers:
                density: Any = -stretch[layer].sum(-1)
                law = dist.Delta(moved[layer], log_density=density, event_dim=2)
                pyro.sample(f"{rnn.name}_{layer}{'_noise' if before else ''}", law)


@dataclass(frozen=True)
class GuideSteps:
    """A guide's maps along one window, for whoever draws the noise step by step; made by :meth:`Guide.along`.

    Attributes:
        walk: the network along the window.
        heads, contexts: of each noisy layer: the network that computes its map, and what it takes from x,
            ``(..., B, T, F)``.
        uses_states: whether maps depend on the states.
        real: which steps are real, ``(..., B, T)``; None for all.
    """

    walk: StepwiseRNN
    heads: Heads
    contexts: Layers
    uses_states: bool
    real: Tensor | None

    @cached_property
    def spaces(self) -> dict[int, Transform]:
        """The bijection onto the support of each layer's noise at one step, for noise that has innovations."""
        return {layer: biject_to_support(self.walk.noise_law(layer)) for layer in self.heads}

    def push(
        self, t: int, layer: int, noise: Tensor, space: Transform, mean: Tensor, states: States, below: Layers
    ) -> tuple[Tensor, Tensor]:
        """Transform the noise (native noise: the state) of a layer at step t, drawn from its prior.

        Args:
            noise: ``(..., B, H)``.
            space: the bijection onto its support.
            mean: of z_t, ``(..., B, H)``.
            states: those after step t - 1.
            below: z_t of the noisy layers below.

        Returns:
            the transformed noise, and log |d noise / d noise before| ``(..., B)``.
        """
        features = None
        if self.uses_states:
            parts = [*states.z, *(c for c in states.c if c is not None), *below.values(), mean]
            features = torch.cat([part.expand(*noise.shape[:-1], -1) for part in parts], -1)
        real = None if self.real is None else self.real[..., t]
        return push(noise, space, self.heads[layer](self._by_step[layer][t], features, real))

    @cached_property
    def _by_step(self) -> dict[int, tuple[Tensor, ...]]:
        return {layer: context.unbind(-2) for layer, context in self.contexts.items()}


def _parallel(steps: GuideSteps, before: Layers) -> tuple[Layers, Layers]:
    """ε_{1:T} of each layer and log |dε / dε_before| of each step, if no map depends on the states."""
    pushed = {
        layer: push(
            noise,
            biject_to_support(steps.walk.noise_law(layer, per_step=False)),
            steps.heads[layer](steps.contexts[layer], None, steps.real),
        )
        for layer, noise in before.items()
    }
    return {layer: noise for layer, (noise, _) in pushed.items()}, {layer: s for layer, (_, s) in pushed.items()}


def _sequential(name: str, steps: GuideSteps, before: Layers) -> tuple[Layers, Layers]:
    """ε_{1:T} of each layer (z of native noise), and log |dε / dε_before| of each step, all layers together."""
    walk, noises = steps.walk, {layer: noise.unbind(-2) for layer, noise in before.items()}
    moved: dict[int, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in steps.heads}
    states = walk.start
    for t in range(walk.inputs.shape[-2]):
        below: Layers = {}

        def draw(layer: int, mean: Tensor, t: int, states: States, below: Layers) -> Tensor:
            if before:
                noise, space = noises[layer][t], steps.spaces[layer]
            else:
                noise, space = _native(name, steps, t, layer, mean)
            pushed = steps.push(t, layer, noise, space, mean, states, below)
            moved[layer].append(pushed)
            below[layer] = mean + walk.scale(layer, mean) * pushed[0] if before else pushed[0]
            return below[layer]

        _, states = walk.step(t, states, partial(draw, t=t, states=states, below=below))
    return (
        {layer: torch.stack([noise for noise, _ in path], -2) for layer, path in moved.items()},
        {layer: torch.stack([stretch for _, stretch in path], -1) for layer, path in moved.items()},
    )


def _native(name: str, steps: GuideSteps, t: int, layer: int, mean: Tensor) -> tuple[Tensor, Transform]:
    """z_t drawn from its prior, which depends on the mean, and the bijection onto its support."""
    law = steps.walk.law(layer, mean)
    masked = law if steps.real is None else law.mask(steps.real[..., t])
    return pyro.sample(f"{name}_{layer}_before_{t + 1}", masked, infer={"is_auxiliary": True}), biject_to(law.support)


@in_context  # in the model's context, so that weights and γ with priors have their sites' names
def _read(model: SequenceModel, inputs: Tensor, state: State | None) -> StepwiseRNN:
    """The network, which steps along its inputs."""
    return model.rnn.stepwise(model.embed(inputs), state)


def _draw_before(rnn: NoisyRNN, layer: int, walk: StepwiseRNN) -> Tensor:
    """ε_{1:T} from its prior, ``(..., B, T, H)``."""
    law, (*batch, steps, _) = walk.noise_law(layer, per_step=False), walk.inputs.shape
    batch_shape = torch.broadcast_shapes(law.batch_shape, (*batch, steps))
    path = law.expand(batch_shape).to_event(1)
    return pyro.sample(f"{rnn.name}_{layer}_before", path, infer={"is_auxiliary": True})


def _coordinates(rnn: NoisyRNN, units: int) -> tuple[int, bool]:
    """The number of unconstrained coordinates of ``units`` units of noise, and whether its support is constrained."""
    if not rnn.noise.has_innovations:
        return units, True
    law = rnn.noise.law(torch.ones(()), units)
    (size,) = biject_to_support(law).inverse_shape((units,))
    return size, law.support is not constraints.real_vector
