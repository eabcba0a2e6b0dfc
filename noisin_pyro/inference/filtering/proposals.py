"""How particles move: the noise of each step, drawn from its prior or from a named guide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor
from torch.distributions import biject_to

from noisin_pyro.inference.guides import Guide
from noisin_pyro.inference.guides.amortized import GuideSteps
from noisin_pyro.models import SequenceModel, States, StepwiseRNN


class Proposed(NamedTuple):
    """One step of every particle.

    Attributes:
        output: z of the last layer, ``(P, B, H)``.
        states: what feeds back.
        drawn: z of each noisy layer, by its number.
        log_ratio: log p(noise) - log q(noise) given the past, ``(P, B)``, where it is not 0; else None.
    """

    output: Tensor
    states: States
    drawn: dict[int, Tensor]
    log_ratio: Tensor | None


class Proposal:
    """Moves P particles for each of B sequences along a window.

    Args:
        walk: the network along the window.
        particles: P.
        guide: a guide's maps along the same window; None draws from the prior.
    """

    def __init__(self, walk: StepwiseRNN, particles: int, guide: GuideSteps | None = None) -> None:
        self.walk, self.guide, self.rows = walk, guide, (particles, walk.inputs.shape[-3])
        noisy = [layer for layer, spread in enumerate(walk.spreads) if spread is not None]
        # laws of ε do not depend on the step; those of native noise depend on the mean
        self._noise_laws: dict[int, Any] = {}
        if walk.family.has_innovations:
            self._noise_laws = {layer: walk.noise_law(layer).expand(self.rows) for layer in noisy}

    def step(self, t: int, states: States) -> Proposed:
        """Draw step t (from 0) given the states after step t - 1."""
        drawn: dict[int, Tensor] = {}
        log_ratios: list[Tensor] = []

        def draw(layer: int, mean: Tensor) -> Tensor:
            # at the input layer all particles share the mean
            law = self._noise_laws[layer] if self._noise_laws else self.walk.law(layer, mean.expand(*self.rows, -1))
            noise, log_ratio = self._noise(t, layer, law, mean, states, drawn)
            if log_ratio is not None:
                log_ratios.append(log_ratio)
            drawn[layer] = mean + self.walk.scale(layer, mean) * noise if self._noise_laws else noise
            return drawn[layer]

        output, states_after = self.walk.step(t, states, draw)
        total = sum(log_ratios[1:], start=log_ratios[0]) if log_ratios else None
        return Proposed(output, states_after, drawn, total)

    def _noise(
        self, t: int, layer: int, law: Any, mean: Tensor, states: States, below: dict[int, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """ε (native noise: z) of a layer, and log p - log q of it."""
        noise = law()
        if not law.has_rsample:  # its score function, as a weight of value 1
            log_p = law.log_prob(noise)
            return noise, log_p - log_p.detach()
        if self.guide is None:
            return noise, None
        space = self.guide.spaces[layer] if self._noise_laws else biject_to(law.support)
        moved, stretch = self.guide.push(t, layer, noise, space, mean, states, below)
        return moved, law.log_prob(moved) - law.log_prob(noise) + stretch


def check_proposal(guide: Callable[..., Any] | None, program: SequenceModel) -> Guide | None:
    """The guide, if it can draw the noise of one step after another.

    Raises:
        ValueError: a guide other than a named one, or one of another model.
    """
    if guide is not None and not isinstance(guide, Guide):
        raise ValueError(
            f"guide: a particle filter draws the noise step by step, and {type(guide).__name__} draws whole sequences; "
            "use guides.get with 'mean-field', 'filtering' or 'smoothing', or no guide"
        )
    if guide is not None and guide.model is not program:
        raise ValueError("guide was made for another model; make it by guides.get(name, model) for this one")
    return guide
