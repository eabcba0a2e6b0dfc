"""Dropout for recurrent networks by name: masks that stay as they are along a sequence, each a site of the program."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro.distributions import constraints
from torch import Size, Tensor

from noisin_pyro.names import known
from noisin_pyro.noise import get as get_noise
from noisin_pyro.noise.units import ONE, OverUnits

REGULARIZERS = ("none", "variational-dropout", "D")


@dataclass(frozen=True)
class Dropout:
    """The share of units that each kind of mask drops, from 0 (no mask) up to, not including, 1.

    A mask is noise around 1: 0 by chance p, else 1 / (1 − p), so its mean is 1, and the network with its noise off is
    the one to test ("weight averaging"), an ensemble of noisy ones Monte Carlo dropout. There is one draw for a
    sequence in each call of the model (of a stream, for a column in each window); it is the same at all steps, and for
    all gates: the source's "tied weights" (its "untied" ones draw a mask of inputs and recurrence for each gate).

    Args:
        embedding: of word types: a type that is dropped is 0 wherever it stands in the sequence.
        input: of each layer's inputs.
        recurrent: of what feeds back within each layer, W_hh (m ⊙ z_{t-1}). The state itself goes on as it is, and so
            does the share of z_{t-1} that a GRU carries over.
        output: of the last layer's states, as the emission reads them.

    Raises:
        ValueError: a rate that is not in [0, 1).

    Source: Gal and Ghahramani (2016), *A Theoretically Grounded Application of Dropout in Recurrent Neural Networks*.
    """

    embedding: float = 0.0
    input: float = 0.0
    recurrent: float = 0.0
    output: float = 0.0

    def __post_init__(self) -> None:
        for name, rate in dataclasses.asdict(self).items():
            if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 <= rate < 1:
                raise ValueError(
                    f"dropout ({name}): a rate must be from 0 (drops nothing) to less than 1, got {rate!r}"
                )

    @property
    def drops(self) -> bool:
        """Whether any mask is drawn."""
        return any(dataclasses.astuple(self))

    def refuse(self, what: str, remedy: str = "") -> None:
        """Raise a ValueError if any mask is drawn: ``what`` has none, and ``remedy`` helps beside going without."""
        if self.drops:
            raise ValueError(f"{what}, got {self}; take regularizer 'none'{remedy and f', or {remedy}'}")


NONE = Dropout()
VARIATIONAL = Dropout(embedding=0.3, input=0.5, recurrent=0.3, output=0.5)
D = Dropout(input=0.5, recurrent=0.4, output=0.5)


def get(name: str | Dropout, rate: float | None = None) -> Dropout:
    """The rates of a regulariser.

    - ``"none"``: no dropout.
    - ``"variational-dropout"``: of Gal and Ghahramani (2016), all four masks, at one ``rate``; by default at those
      of their large model of Penn Treebank, 0.3 for embedding and recurrence and 0.5 for inputs and output.
    - ``"D"``: that of the published NOISIN paper, 0.5 / 0.4 / 0.5 on input / recurrence / output. Whether its masks
      stay along a sequence is left unsaid there; here they do.

    Args:
        name: one of these, or a :class:`Dropout`, which is returned as it is.
        rate: for ``"variational-dropout"`` alone.

    Raises:
        ValueError: an unknown name, a rate out of range, or one that has no effect.
    """
    if not isinstance(name, Dropout):
        known("regularizer", name, REGULARIZERS)
    if rate is not None and name != "variational-dropout":
        told = "D, whose rates are the paper's (0.5, 0.4, 0.5)" if name == "D" else f"regularizer {name!r}"
        raise ValueError(
            f"dropout {rate!r} is the rate of regularizer 'variational-dropout', not of {told}; leave it out, or take "
            "that"
        )
    if isinstance(name, Dropout):
        return name
    if rate is not None:
        return Dropout(rate, rate, rate, rate)
    return {"none": NONE, "variational-dropout": VARIATIONAL, "D": D}[name]


def of_layers(given: str | Dropout) -> Dropout:
    """The rates of layers alone, which have no embedding.

    Raises:
        ValueError: what :func:`get` refuses, or dropout of an embedding that is asked for.
    """
    if isinstance(given, Dropout) and given.embedding > 0:
        raise ValueError(
            f"regularizer: layers have no embedding to drop words of, got embedding={given.embedding:g}; leave "
            "that out, or give it to a LanguageModel"
        )
    return dataclasses.replace(get(given), embedding=0.0)


class Mask(OverUnits):
    """The library's own multiplicative Bernoulli noise, of deviation √(p / (1 − p)) around 1; faster to draw.

    Args:
        rate: p.
        ones: what it is around, ``(..., units)``.
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
        """The same law, by its name."""
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

    def rsample(self, sample_shape=ONE) -> Tensor:
        """Zeros and 1 / (1 − p), exactly."""
        drawn = torch.rand(self._extended_shape(sample_shape), dtype=self._mean.dtype, device=self._mean.device)
        return torch.ge(drawn, self.rate, out=drawn).div_(1 - self.rate)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.noise.log_prob(value)

    def clean(self) -> Tensor:
        """What does nothing: ones."""
        return self._mean


def draw(name: str, rate: float, like: Tensor, units: int) -> Tensor | None:
    """A mask ``(..., B, units)`` for sequences ``like`` ``(..., B, T, ...)``, at the site of that name.

    None where there is nothing to drop: at rate 0, which has no site, and with the noise off.
    """
    if rate == 0:
        return None
    law = Mask(rate, torch.ones((), dtype=like.dtype, device=like.device).expand(*like.shape[:-2], units))
    mask = pyro.sample(name, law)
    return None if mask is law.mean else mask
