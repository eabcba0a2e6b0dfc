"""The contestant in plain Pyro: a site for each time step, ``Trace_ELBO``, and a guide that repeats the prior."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
from pyro.infer import Trace_ELBO
from torch import Tensor

from noisin_pyro.data import Batch
from timing.shapes import Shape
from timing.torch_networks import GAMMA, Loop, State


class RepeatedPrior(Loop):
    """The program and its guide, as they are written without this library.

    The emission observes all steps at once, and the guide leaves it out: both are faster than to do it step by step.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.elbo = Trace_ELBO(max_plate_nesting=1)

    def loss(self, batch: Batch, state: State) -> tuple[Tensor, State]:
        loss = self.elbo.differentiable_loss(self.model, self.guide, batch, state)
        return loss / batch.num_steps, self.end

    def model(self, batch: Batch, state: State) -> None:
        """p(x | z) p(z)."""
        with pyro.plate("sequences", len(batch.inputs), dim=-1):
            z, self.end = self.layers(self.embed(batch.inputs), state)
            scores = self.linear(z)
            if self.embedding is None:
                law = dist.Bernoulli(logits=scores).to_event(2)
            else:
                law = dist.Categorical(logits=scores).to_event(1)
            pyro.sample("x", law, obs=batch.targets)

    def guide(self, batch: Batch, state: State) -> None:
        """q(z) = p(z)."""
        with pyro.plate("sequences", len(batch.inputs), dim=-1):
            self.layers(self.embed(batch.inputs), state)

    def draw(self, h: Tensor, layer: int, t: int) -> Tensor:
        return pyro.sample(f"z_{layer}_{t}", dist.Normal(h, GAMMA).to_event(1))
