"""Dropout for recurrent networks by name, with masks that are fixed along a sequence; each mask is a sample site."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import pyro
import torch
from pyro.distributions import constraints
from torch import Size, Tensor

from noisin_pyro._lookup import known
from noisin_pyro.noise import get as get_noise
from noisin_pyro.noise.standardized import UnitDistribution

REGULARIZERS = ("none", "variational-dropout", "D")


@dataclass(frozen=True)
class Dropout:
    """The probability p with which each kind of mask drops a unit, in [0, 1); 0 means no mask.

    A mask's elements are 0 with probability p and 1 / (1 − p) otherwise, so their mean is 1. The network with its noise
    off is the source's "weight averaging", an ensemble of noisy runs its Monte Carlo dropout. A mask is drawn once for
    each sequence and call of the model (on a stream, for each column and window). It is the same at all steps and for
    all gates: the source's "tied weights" (its "untied" weights have a mask for each gate).

    Args:
        embedding: for word types: a dropped type is 0 wherever it stands in the sequence.
        input: for each layer's inputs.
        recurrent: for what feeds back within each layer, W_hh (m ⊙ z_{t-1}). The state itself is not masked, nor is the
            share of z_{t-1} that a GRU carries over.
        output: for the last layer's states, as the emission reads them.

    Raises:
        ValueError: for a rate that is not in [0, 1).

    Source: Gal and Ghahramani (2016), *A Theoretically Grounded Application of Dropout in Recurrent Neural Networks*.
    """

    embedding: float = 0.0
    input: float = 0.0
    recurrent: float = 0.0
    output: float = 0.0

    def __post_init__(self) -> None:
        for name, rate in dataclasses.asdict(self).items():
            if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 <= float(rate) < 1:
                raise ValueError(
                    f"dropout ({name}): a rate must be from 0 (drops nothing) to less than 1, got {rate!r}"
                )

    @property
    def drops(self) -> bool:
        """Whether any mask is drawn."""
        return any(dataclasses.astuple(self))

    def refuse(self, what: str, remedy: str = "") -> None:
        """Raise a ValueError if any mask is drawn.

        Args:
            what: what does not support masks, a clause.
            remedy: what to use instead, beside no dropout.
        """
        if self.drops:
            raise ValueError(f"{what}, got {self}; use regularizer 'none'{remedy and f', or {remedy}'}")


NONE = Dropout()
VARIATIONAL = Dropout(embedding=0.3, input=0.5, recurrent=0.3, output=0.5)
D = Dropout(input=0.5, recurrent=0.4, output=0.5)


def get(name: str | Dropout, rate: float | None = None) -> Dropout:
    """The rates of a regularizer.

    - ``"none"``: no dropout.
    - ``"variational-dropout"``: all four masks of Gal and Ghahramani (2016), at one ``rate``; by default at the rates
      of their large model of Penn Treebank, 0.3 for embedding and recurrence and 0.5 for inputs and output.
    - ``"D"``: dropout of the published NOISIN paper, 0.5 / 0.4 / 0.5 for input / recurrence / output. The paper does
      not specify whether its masks are fixed along a sequence; here they are.

    Args:
        name: one of these, or a :class:`Dropout`, which is returned unchanged.
        rate: for ``"variational-dropout"`` only.

    Raises:
        ValueError: for an unknown name, a rate out of range, or a rate that has no effect.
    """
    if not isinstance(name, Dropout):
        known("regularizer", name, REGULARIZERS)
    if rate is not None and name != "variational-dropout":
        other = "D, whose rates are the published paper's (0.5, 0.4, 0.5)" if name == "D" else f"regularizer {name!r}"
        raise ValueError(
            f"dropout {rate!r} is the rate of regularizer 'variational-dropout', not of {other}; leave it out, or use "
            "that regularizer"
        )
    if isinstance(name, Dropout):
        return name
    if rate is not None:
        return Dropout(rate, rate, rate, rate)
    return {"none": NONE, "variational-dropout": VARIATIONAL, "D": D}[name]


def get_for_layers(name: str | Dropout) -> Dropout:
    """The rates of a regularizer for layers alone, which have no embedding.

    Raises:
        ValueError: as :func:`get`, or for a :class:`Dropout` with a rate of the embedding.
    """
    if isinstance(name, Dropout) and name.embedding > 0:
        raise ValueError(
            f"regularizer: layers have no embedding to drop words of, got embedding={name.embedding:g}; leave "
            "that out, or give it to a LanguageModel"
        )
    return dataclasses.replace(get(name), embedding=0.0)


class Mask(UnitDistribution):
    """Multiplicative Bernoulli noise around 1 with standard deviation √(p / (1 − p)), faster to draw than the family.

    Args:
        rate: p.
        ones: the mean, ``(..., units)``.
    """

    def __init__(self, rate: float, ones: Tensor) -> None:
        self.rate, self._mean = rate, ones
        super().__init__(ones.shape)

    def expand(self, batch_shape, _instance=None) -> Mask:
        if Size(batch_shape) == self.batch_shape:
            return self
        return Mask(self.rate, self._mean.expand(Size(batch_shape) + self.event_shape))

    @property
    def noise(self) -> Any:
        """The same distribution from the family."""
        return get_noise("bernoulli:multiplicative")(self._mean, math.sqrt(self.rate / (1 - self.rate)))

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        return self.noise.support

    @property
    def mean(self) -> Tensor:
        return self._mean

    @property
    def variance(self) -> Tensor:
        return self.noise.variance

    def rsample(self, sample_shape=Size()) -> Tensor:
        """0 or 1 / (1 − p), exactly."""
        drawn = torch.rand(self._extended_shape(sample_shape), dtype=self._mean.dtype, device=self._mean.device)
        return drawn.ge_(self.rate).div_(1 - self.rate)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.noise.log_prob(value)

    def clean(self) -> Tensor:
        """A mask that drops nothing: ones."""
        return self._mean


def draw(name: str, rate: float, like: Tensor, units: int) -> Tensor | None:
    """Sample a mask ``(..., B, units)`` for sequences ``like`` ``(..., B, T, ...)``, at the site ``name``.

    Returns None where nothing is dropped: at rate 0, which has no site, and with the noise off.
    """
    if rate == 0:
        return None
    law = Mask(rate, torch.ones((), dtype=like.dtype, device=like.device).expand(*like.shape[:-2], units))
    mask = pyro.sample(name, law)
    return None if mask is law.mean else mask
