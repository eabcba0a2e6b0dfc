"""Batches of sequences, and of one long text (``Stream``)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from noisin_pyro._lookup import integer


@dataclass(frozen=True)
class Batch:
    """A batch of ``B`` sequences of up to ``T`` steps.

    Attributes:
        inputs: input of each step, ``(B, T)`` or ``(B, T, features)``.
        targets: what is predicted at each step, ``(B, T)`` or ``(B, T, features)``.
        lengths: number of real steps of each row, ``(B,)``, may be 0; later steps are padding. ``None`` if there is no
            padding.
        carried: whether each row continues the same row of the previous batch, so that the state carries over.
        mask: ``(B, T)`` booleans, False where a target is missing, and in padding. ``None`` if no target is missing.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor | None
    carried: bool
    mask: Tensor | None = None

    @property
    def num_steps(self) -> int:
        """Number of targets that are scored. Synchronizes with the device if ``lengths`` or ``mask`` is on a GPU."""
        if self.mask is not None:
            return int(self.mask.sum())
        return self.targets.shape[:2].numel() if self.lengths is None else int(self.lengths.sum())

    @property
    def real_lengths(self) -> Tensor:
        """Number of real steps of each row, ``(B,)``."""
        size, steps = self.targets.shape[:2]
        return torch.full((size,), steps, device=self.targets.device) if self.lengths is None else self.lengths

    @property
    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of a model beside its state: ``lengths``, and ``mask`` if targets are missing."""
        return {"lengths": self.lengths} | ({} if self.mask is None else {"mask": self.mask})

    def rows(self, index: slice) -> Batch:
        """The batch of these rows, with the same padding."""
        lengths, mask = (part if part is None else part[index] for part in (self.lengths, self.mask))
        return replace(self, inputs=self.inputs[index], targets=self.targets[index], lengths=lengths, mask=mask)


class Stream:
    """One long text, split into ``batch_size`` columns that are read in parallel, one window of steps at a time.

    Column ``b`` is the ``b``-th of ``batch_size`` contiguous parts of the text, whose sizes differ by at most one.
    Every token is predicted exactly once. The input of each step is the preceding token of the text, also at the start
    of a column. The tokens are not copied; windows are, as ``torch.long``.

    Args:
        tokens: the text as indices, ``(num_steps,)``, ``torch.long`` or ``torch.int32``.
        batch_size: number of columns, at most the number of tokens.
        window: number of steps per batch (the length of truncated backpropagation through time).
        start: index of the token assumed to precede the text; 0 is ``<eos>`` in every :class:`Vocabulary`.

    Raises:
        ValueError: another shape or dtype of ``tokens``, a negative index, fewer tokens than columns, or a
            ``batch_size`` or ``window`` below 1.
    """

    def __init__(self, tokens: Tensor, batch_size: int, window: int, start: int = 0) -> None:
        if not isinstance(tokens, Tensor) or tokens.dim() != 1 or tokens.dtype not in (torch.long, torch.int32):
            raise ValueError(
                f"tokens must be a one-dimensional torch.long or torch.int32 tensor of indices, got {describe(tokens)}"
            )
        self.batch_size, self.window = integer("batch_size", batch_size), integer("window", window)
        self.num_steps = len(tokens)
        batch_size = self.batch_size
        if self.num_steps < batch_size:
            raise ValueError(
                f"{self.num_steps} tokens do not fill batch_size={batch_size} columns; "
                f"use a batch_size of at most {max(self.num_steps, 1)}, or more text"
            )
        if start < 0 or tokens.min() < 0:
            raise ValueError(
                f"tokens and start must not be negative, got start={start} and smallest token "
                f"{int(tokens.min())}; encode the text with a Vocabulary"
            )
        self._tokens, self._start = tokens, start
        self._size, self._longer = divmod(self.num_steps, batch_size)  # the first columns have one token more
        self._num_windowed = self._size + (self._longer > 0)
        column = torch.arange(batch_size, device=tokens.device)
        self._firsts = self._size * column + column.clamp(max=self._longer)
        self._has_start = True

    def batches(self, batch_size: int | None = None, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Iterate over the windows in order. Each continues the previous one.

        The last window may be shorter, and has ``lengths`` if columns differ in size. The signature is that of
        :meth:`Sequences.batches`, so that the same loop can iterate over both.

        Raises:
            ValueError: a ``batch_size`` other than the stream's, or a ``generator`` (a text cannot be shuffled).
        """
        if batch_size not in (None, self.batch_size):
            raise ValueError(
                f"batch_size must be that of the stream, {self.batch_size}, got {batch_size}; "
                "leave it out, or build another Stream"
            )
        if generator is not None:
            raise ValueError(
                "generator must be None, because a stream is read in order and cannot be shuffled; leave it out"
            )
        return (self._batch(first) for first in range(0, self._num_windowed, self.window))

    def _batch(self, first: int) -> Batch:
        last = min(first + self.window, self._num_windowed)
        steps = torch.arange(first - 1, last, device=self._tokens.device)  # with the one before the window
        index = (self._firsts.unsqueeze(1) + steps).clamp(0, len(self._tokens) - 1)
        text = self._tokens[index].long()
        if first == 0 and self._has_start:
            text[0, 0] = self._start
        lengths = None
        if last == self._num_windowed > self._size:
            shorter = torch.arange(self.batch_size, device=self._tokens.device) >= self._longer
            lengths = last - first - shorter.long()
        return Batch(inputs=text[:, :-1], targets=text[:, 1:], lengths=lengths, carried=first > 0)

    def rows(self, index: slice) -> Stream:
        """The stream of these columns, with the same windows."""
        part = copy.copy(self)
        part._firsts = self._firsts[index]
        first, part.batch_size = range(self.batch_size)[index].start, len(part._firsts)
        part._has_start = self._has_start and first == 0
        part._longer = min(max(self._longer - first, 0), part.batch_size)
        part.num_steps = part.batch_size * self._size + part._longer
        return part

    def to(self, device: torch.device | str) -> Stream:
        """Copy to ``device``."""
        moved = copy.copy(self)
        moved._tokens, moved._firsts = self._tokens.to(device), self._firsts.to(device)
        return moved


def describe(values: object) -> str:
    return f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else f"{type(values).__name__}"
