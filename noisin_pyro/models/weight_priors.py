"""Priors of the layers' weights, p(W; η) (paper, section 3, empirical Bayes): Dirac (plain weights) or normal."""

from __future__ import annotations

import pyro.distributions as dist
from pyro.nn import PyroModule, PyroSample
from torch import Tensor, nn

from noisin_pyro._lookup import known
from noisin_pyro.models.spread import Spread

WEIGHT_PRIORS = ("dirac", "normal")
START, FLOOR = 0.05, 0.01


class NormalWeights(dist.Independent):
    """The normal prior of one matrix; a class of its own, so that ``noise_off`` recognizes it."""

    def clean(self) -> Tensor:
        """The matrix without noise."""
        return self.mean


class Prior:
    """N(μ, s²) of the weight ``name``: μ is the parameter ``{name}_mean``, s the spread ``{name}_spread``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, module: PyroModule) -> NormalWeights:
        mean, spread = getattr(module, f"{self.name}_mean"), getattr(module, f"{self.name}_spread")
        return NormalWeights(dist.Normal(mean, spread(mean)), 2)


def place_priors(rnn: PyroModule, weight_prior: str) -> None:
    """Give each weight matrix of the layers (not the biases) its prior.

    ``"dirac"`` leaves the weights as they are. ``"normal"`` is W ~ N(μ, s²) with learned η = (μ, s): a mean for every
    weight, which starts at the weight's value, and one standard deviation for the matrix, s = floor + softplus(ρ) as
    for γ, which starts at 0.05 with a floor of 0.01. The sites have the weights' names (``rnn.weight_hh_l0``). One draw
    serves all sequences and steps of a sample.

    Raises:
        ValueError: for another name, or layers whose weights have priors already.
    """
    if known("weight_prior", weight_prior, WEIGHT_PRIORS) == "dirac":
        return
    if rnn._pyro_samples:
        raise ValueError(
            f"weight_prior={weight_prior!r}: the layers' weights have priors already, from another model; leave it out "
            "to share these priors, or use new layers"
        )
    for name, weight in list(rnn.named_parameters(recurse=False)):
        if name.startswith("weight"):
            delattr(rnn, name)
            setattr(rnn, f"{name}_mean", nn.Parameter(weight.detach()))
            setattr(rnn, f"{name}_spread", Spread(START, floor=FLOOR, learn=True))
            setattr(rnn, name, PyroSample(Prior(name)))
