"""Small models, data and z-scores for the tests of posteriors."""

from typing import Any

import numpy as np
import torch
from pyro import poutine
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro.data import Sequences
from noisin_pyro.models import NoisyRNN, SequenceModel

LIMIT = 5.0  # of a z-score: exceeded by chance with probability 6e-7


def look(model: Any, data: Any, *args: Any, **options: Any) -> Any:
    return nz.posterior(model, data, *args, **{"seed": 1, "progress": False, **options})


def make(cell: str = "tanh", noise: str = "gaussian", layers: int = 1, emission: str = "bernoulli", **options: Any):
    rnn = NoisyRNN(3, 2, layers, cell=cell, noise=noise, **{"spread": 0.4, **options})
    return SequenceModel(rnn, emission, 4).double()


def some_data(emission: str = "bernoulli", batch: int = 3, steps: int = 4, lengths: Any = None) -> Sequences:
    x = torch.bernoulli(torch.full((batch, steps, 4), 0.5)).double()
    if emission == "categorical":
        x = torch.randint(4, (batch, steps))
    return Sequences(torch.randn(batch, steps, 3).double(), x, lengths)


def drawn_from(model: SequenceModel, batch: int, steps: int, lengths: Any = None) -> Sequences:
    inputs = torch.zeros(batch, steps, 1).double()
    with torch.no_grad(), poutine.block():
        x = poutine.trace(model).get_trace(inputs).nodes["x"]["value"]
    return Sequences(inputs, x, lengths)


def z_scores(posterior: Any, mean: Tensor, deviation: Tensor, draws: Any) -> np.ndarray:
    """z-scores of the draws' means and standard deviations, given the number of equivalent independent draws."""
    m, s, n = mean.numpy(), deviation.numpy(), np.asarray(draws)
    of_mean = (posterior.mean(("chain", "draw")).values - m) / (s / n**0.5)
    of_deviation = (posterior.std(("chain", "draw")).values - s) / (s / (2 * n) ** 0.5)
    return np.stack([of_mean, of_deviation])
