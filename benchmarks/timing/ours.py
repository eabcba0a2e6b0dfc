"""This library's contestants: what ``noisin train`` builds, and what it does at every step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from noisin_pyro import Config, PriorAsGuide_ELBO
from noisin_pyro.data import Batch, Corpus, Sequences, Vocabulary
from noisin_pyro.models.noisy_rnn import State
from noisin_pyro.training import Model, Noise, Optimisation, Run
from noisin_pyro.training.build import build_model
from noisin_pyro.training.optimizers import build_optimizer
from noisin_pyro.training.stepper import stepper
from timing.shapes import Shape


class OurTraining:
    """A network, its bound and its optimiser, one batch of ``noisin train`` at a time.

    Args:
        model, noise: options of :class:`Model` beside the shape's, and of :class:`Noise`.
    """

    def __init__(
        self,
        shape: Shape,
        batches: Iterable[Batch],
        device: torch.device,
        model: Mapping[str, Any] | None = None,
        **noise: Any,
    ) -> None:
        sizes: dict[str, Any] = {"cell": shape.cell, "num_layers": shape.layers, "hidden_size": shape.units}
        config = Config(
            model=Model(**sizes | dict(model or {})),
            noise=Noise(**noise),
            optimisation=Optimisation(particles=shape.particles),
            run=Run(precision=shape.precision),  # type: ignore[arg-type]
        )
        how = config.optimisation
        self.model = build_model(config, _corpus(shape)).to(device)
        self.bound = PriorAsGuide_ELBO(num_particles=how.particles, bound=how.bound, max_plate_nesting=1)(self.model)
        self.optimizer = build_optimizer(how.optimizer, self.bound.parameters(), how.learning_rate, how.average_after)
        self.stepper, self.batches = stepper(self.bound, self.optimizer, how.clip), itertools.cycle(batches)
        self.nats = math.nan

    @property
    def state(self) -> State | None:
        """That to carry on."""
        return self.stepper.state

    def step(self) -> float:
        """Forward, loss, backward, clip, update; the loss in nats per step."""
        self.stepper.take(next(self.batches), 1)
        if self.stepper.batches >= self.stepper.every:  # on a GPU the loss is read now and then
            read = self.stepper.read()
            self.nats = read.nats / read.steps
        return self.nats


def _corpus(shape: Shape) -> Corpus:
    """What tells the model its size: nothing is read from it."""
    if shape.is_music:
        none = torch.zeros(1, 1, shape.outputs)
        part: Any = Sequences(none, none)
        return Corpus("music", part, part, part, None)
    words = Vocabulary(["<eos>", *map(str, range(1, shape.outputs))])
    part = torch.zeros(1, dtype=torch.long)
    return Corpus("text", part, part, part, words)
