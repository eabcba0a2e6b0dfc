"""The sizes of a training step, and the batches that it reads."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from noisin_pyro.data import Batch, Sequences, Stream, load

NUM_WINDOWS = 32  # each contestant cycles through this many consecutive windows


@dataclass(frozen=True)
class Shape:
    """The sizes of one training step, the same for every implementation of it.

    Attributes:
        cell, layers, units: cell type, number of layers and hidden size of the network.
        batch, window: batch size and number of time steps.
        outputs: vocabulary size, or number of keys of a piano roll.
        data: name of the data set that has so many words or keys.
        particles: Monte Carlo samples per gradient; only this library's steps take more than one.
        precision: dtype of all parameters and activations; float64 is for tests.
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
        """Whether inputs and targets are binary vectors of keys instead of word indices."""
        return self.data == "jsb"

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.precision)

    @property
    def num_steps(self) -> int:
        """Number of predictions in a batch."""
        return self.batch * self.window


def data_source(shape: Shape) -> str:
    """The data set's name if ``NOISIN_DATA`` is set, else ``"random"``."""
    return shape.data if os.environ.get("NOISIN_DATA") else "random"


def windows(shape: Shape, device: torch.device, data: str | None = None, count: int = NUM_WINDOWS) -> list[Batch]:
    """Full windows of a stream, each of which continues the one before.

    Texts are cut into columns and windows as ``noisin train`` does. Chorales are concatenated first, so that no time
    step is padding.

    Args:
        shape: sizes of the batches.
        device: where the batches are stored.
        data: ``"random"`` or the name of a data set; default: :func:`data_source`.
        count: maximum number of windows.

    Raises:
        ValueError: if the text's vocabulary does not have ``shape.outputs`` words.
    """
    data = data_source(shape) if data is None else data
    if shape.is_music:
        return _music_windows(shape, device, data, count)
    size = shape.num_steps * count
    if data == "random":
        tokens = torch.randint(shape.outputs, (size,), generator=torch.Generator().manual_seed(0))
    else:
        corpus = load(data, root=os.environ["NOISIN_DATA"])
        assert isinstance(corpus.train, Tensor) and corpus.vocabulary is not None
        if len(corpus.vocabulary) != shape.outputs:
            raise ValueError(f"outputs must be the {len(corpus.vocabulary)} words of {data!r}, got {shape.outputs}")
        tokens = corpus.train[:size]
    tokens = tokens[: len(tokens) // shape.num_steps * shape.num_steps]
    return list(Stream(tokens, shape.batch, shape.window).to(device).batches())


def _music_windows(shape: Shape, device: torch.device, data: str, count: int) -> list[Batch]:
    if data == "random":
        probs = torch.full((shape.num_steps * count + 1, shape.outputs), 0.05)
        chords = torch.bernoulli(probs, generator=torch.Generator().manual_seed(0))
    else:
        train = load(data, root=os.environ["NOISIN_DATA"]).train
        assert isinstance(train, Sequences)
        chords = torch.cat([x[:length] for x, length in zip(train.targets, train.lengths.tolist(), strict=True)])
    count = min(count, (len(chords) - 1) // shape.num_steps)
    chords = chords.to(device, shape.dtype)
    inputs, targets = (
        x[: count * shape.num_steps].reshape(shape.batch, count * shape.window, -1) for x in (chords[:-1], chords[1:])
    )
    pairs = zip(inputs.split(shape.window, 1), targets.split(shape.window, 1), strict=True)
    return [Batch(x, y, None, carried=index > 0) for index, (x, y) in enumerate(pairs)]
