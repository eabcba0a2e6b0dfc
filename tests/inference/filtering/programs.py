"""A small model, data for it, and its filtering bound."""

from typing import Any

import torch
from torch import Tensor

from noisin_pyro import PriorAsGuide_ELBO, SequenceModel

from ...small_layers import make_rnn

BATCH, STEPS, PARTICLES, OUTPUTS = 3, 5, 4, 4


def make(emission: str = "bernoulli", **options: Any) -> SequenceModel:
    return SequenceModel(make_rnn(**options), emission, OUTPUTS).double()


def data(emission: str = "bernoulli", batch: int = BATCH, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    x = torch.bernoulli(torch.full((batch, steps, OUTPUTS), 0.5)).double()
    x = torch.randint(OUTPUTS, (batch, steps)) if emission == "categorical" else x
    return torch.randn(batch, steps, 2).double(), x


def filtering(model: Any, guide: Any = None, particles: int = PARTICLES, **options: Any) -> Any:
    return PriorAsGuide_ELBO(particles, bound="filtering", **options)(model, guide)
