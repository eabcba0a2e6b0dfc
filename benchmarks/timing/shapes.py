"""The size of a training step, and the data that it reads."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from noisin_pyro.data import Batch, Sequences, Stream, load

WINDOWS = 32  # of the data that each contestant walks through, again and again


@dataclass(frozen=True)
class Shape:
    """One training step, whoever makes it.

    Attributes:
        cell, layers, units: the network.
        batch, window: sequences side by side, and time steps.
        outputs: words, or keys of a piano roll.
        data: the set of that many words or keys.
        particles: samples of the noise for each gradient; only ours draw more than one.
        precision: of all numbers; float64 is for checks.
    """

    cell: str = "tanh"
    layers: int = 1
    units: int = 256
    batch: int = 20
    window: int = 35
    outputs: int = 10_000
    data: str = "ptb"
    particles: int = 1
    precision: str = "float32"

    @property
    def is_music(self) -> bool:
        """Whether inputs and targets are vectors of keys, not words."""
        return self.data == "jsb"

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.precision)

    @property
    def steps(self) -> int:
        """Predictions in a batch."""
        return self.batch * self.window


def source(shape: Shape) -> str:
    """Where the data come from: a set by name, or ``"random"``."""
    return shape.data if os.environ.get("NOISIN_DATA") else "random"


def windows(shape: Shape, device: torch.device, data: str | None = None, most: int = WINDOWS) -> list[Batch]:
    """Full windows of a stream, each going on where the one before ended.

    Texts are cut as ``noisin train`` cuts them; chorales are laid end to end first, so that no step is padding.

    Args:
        data: ``"random"``, or the set's name; by default the set where the environment variable ``NOISIN_DATA`` says
            where data are.
        most: how many.

    Raises:
        ValueError: a text with another number of words.
    """
    data = source(shape) if data is None else data
    if shape.is_music:
        return _music(shape, device, data, most)
    size = shape.steps * most
    if data == "random":
        tokens = torch.randint(shape.outputs, (size,), generator=torch.Generator().manual_seed(0))
    else:
        corpus = load(data, root=os.environ["NOISIN_DATA"])
        assert isinstance(corpus.train, Tensor) and corpus.vocabulary is not None
        if len(corpus.vocabulary) != shape.outputs:
            raise ValueError(f"outputs must be the {len(corpus.vocabulary)} words of {data!r}, got {shape.outputs}")
        tokens = corpus.train[:size]
    tokens = tokens[: len(tokens) // shape.steps * shape.steps]
    return list(Stream(tokens, shape.batch, shape.window).to(device).batches())


def _music(shape: Shape, device: torch.device, data: str, most: int) -> list[Batch]:
    if data == "random":
        chances = torch.full((shape.steps * most + 1, shape.outputs), 0.05)
        chords = torch.bernoulli(chances, generator=torch.Generator().manual_seed(0))
    else:
        train = load(data, root=os.environ["NOISIN_DATA"]).train
        assert isinstance(train, Sequences)
        rolls = [x[:length] for x, length in zip(train.targets, train.lengths.tolist(), strict=True)]
        chords = torch.cat(rolls)
    count = min(most, (len(chords) - 1) // shape.steps)
    chords = chords.to(device, shape.dtype)
    inputs, targets = (
        x[: count * shape.steps].reshape(shape.batch, count * shape.window, -1) for x in (chords[:-1], chords[1:])
    )
    pairs = zip(inputs.split(shape.window, 1), targets.split(shape.window, 1), strict=True)
    return [Batch(x, y, None, carried=first > 0) for first, (x, y) in enumerate(pairs)]
