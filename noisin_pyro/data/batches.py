"""Batches of one long text (``Stream``) or of separate sequences (``Sequences``)."""

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
    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of a model beside its state: ``lengths``, and ``mask`` if targets are missing."""
        return {"lengths": self.lengths} | ({} if self.mask is None else {"mask": self.mask})

    def rows(self, index: slice) -> Batch:
        """The batch of these rows, with the same padding."""
        lengths, mask = (part if part is None else part[index] for part in (self.lengths, self.mask))
        return replace(self, inputs=self.inputs[index], targets=self.targets[index], lengths=lengths, mask=mask)


class Sequences:
    """Separate sequences, possibly of different lengths, padded to the longest.

    Args:
        inputs: ``(N, T)`` indices or ``(N, T, features)``.
        targets: ``(N, T)`` indices or ``(N, T, features)``; step ``t`` is predicted from inputs ``1..t``.
        lengths: number of real steps of each sequence, integers in ``1..T``, ``(N,)``; default: T for all.
        mask: ``(N, T)`` booleans, False where a target is missing; such targets may be NaN, and are in no density and
            in no count. Default: no target is missing.

    Raises:
        ValueError: shapes that do not match, a dtype other than floating point or ``torch.long``, a length outside
            ``1..T``, no sequences, a mask that leaves no target, or values that are not finite (also in the padding,
            because masks are applied after the arithmetic).
    """

    def __init__(
        self, inputs: Tensor, targets: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None
    ) -> None:
        for name, values in (("inputs", inputs), ("targets", targets)):
            if not isinstance(values, Tensor) or values.dim() < 2 or 0 in values.shape[:2]:
                raise ValueError(
                    f"{name} must be a non-empty tensor of shape (sequences, time, ...), "
                    f"got {_describe(values)}; for a single sequence use unsqueeze(0)"
                )
            if not values.is_floating_point() and values.dtype != torch.long:
                raise ValueError(
                    f"{name} must be floating point or torch.long, got {values.dtype}; convert it with .to()"
                )
        if inputs.shape[:2] != targets.shape[:2]:
            raise ValueError(
                f"inputs and targets must have the same (sequences, time), got {tuple(inputs.shape[:2])} "
                f"and {tuple(targets.shape[:2])}; pad both to the longest sequence"
            )
        num_sequences, longest = inputs.shape[:2]
        if lengths is None:
            lengths = torch.full((num_sequences,), longest, device=inputs.device)
        if not _is_integer_tensor(lengths) or lengths.shape != (num_sequences,):
            raise ValueError(f"lengths must be an integer tensor of shape ({num_sequences},), got {_describe(lengths)}")
        if lengths.min() < 1 or lengths.max() > longest:
            raise ValueError(
                f"lengths must be in 1..{longest} (the time axis of inputs), got {int(lengths.min())} "
                f"to {int(lengths.max())}; drop empty sequences, pad inputs and targets to the longest"
            )
        if mask is not None:
            mask, targets = _without_missing(mask, targets, lengths)
        for name, values, remedy in (
            ("inputs", inputs, "impute or remove them"),
            ("targets", targets, "mark missing ones by mask=..."),
        ):
            if values.is_floating_point() and not values.isfinite().all():
                raise ValueError(f"{name} must be finite, got NaN or infinite values; {remedy}, pad with zeros")
        self.inputs, self.targets, self.lengths = inputs, targets, lengths.to(inputs.device, torch.long)
        self.mask = mask
        # on the host, so that making and counting batches does not synchronize with the device
        self._host_lengths = self.lengths.cpu()
        self._host_counts = self._host_lengths if mask is None else mask.sum(1).cpu()

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def num_steps(self) -> int:
        """Total number of targets that are scored."""
        return int(self._host_counts.sum())

    def batches(self, batch_size: int | None = None, generator: torch.Generator | None = None) -> Iterator[Batch]:
        """Iterate over all sequences in batches.

        Each batch is as long as its longest sequence, and has ``lengths=None`` if it needs no padding.

        Args:
            batch_size: number of sequences per batch; the last batch may be smaller. Default: all sequences.
            generator: shuffles the sequences; without one they keep their order.

        Raises:
            ValueError: a ``batch_size`` below 1.
        """
        batch_size = len(self) if batch_size is None else _positive("batch_size", batch_size)
        if generator is None:
            order = torch.arange(len(self))
        else:
            order = torch.randperm(len(self), generator=generator, device=generator.device).cpu()
        return (self._batch(rows) for rows in order.split(batch_size))

    def _batch(self, rows: Tensor) -> Batch:
        lengths = self._host_lengths[rows]
        longest = int(lengths.max())
        ragged = bool((lengths < longest).any())
        rows = rows.to(self.inputs.device)
        return Batch(
            inputs=self.inputs[rows, :longest],
            targets=self.targets[rows, :longest],
            lengths=self.lengths[rows] if ragged else None,
            carried=False,
            mask=None if self.mask is None else self.mask[rows, :longest],
        )

    def rows(self, index: slice) -> Sequences:
        """The data set of these sequences."""
        part = copy.copy(self)
        part.inputs, part.targets, part.lengths, part._host_lengths, part._host_counts = (
            values[index] for values in (self.inputs, self.targets, self.lengths, self._host_lengths, self._host_counts)
        )
        part.mask = None if self.mask is None else self.mask[index]
        return part

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Sequences:
        """Copy to ``device``, with floating-point values converted to ``dtype`` if it is given."""
        moved = copy.copy(self)
        moved.inputs, moved.targets = (
            values.to(device, dtype if values.is_floating_point() else None) for values in (self.inputs, self.targets)
        )
        moved.lengths = self.lengths.to(device)
        moved.mask = None if self.mask is None else self.mask.to(device)
        return moved


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
                f"tokens must be a one-dimensional torch.long or torch.int32 tensor of indices, got {_describe(tokens)}"
            )
        self.batch_size, self.window = _positive("batch_size", batch_size), _positive("window", window)
        self.num_steps = len(tokens)
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


def _without_missing(mask: Tensor, targets: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """The mask without padding, and the targets with the first that is scored in place of all that are not.

    That value is in the support of their density, whose gradient is then finite.
    """
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != targets.shape[:2]:
        raise ValueError(
            f"mask must be a boolean tensor of shape {tuple(targets.shape[:2])}, False where a target is missing, got "
            f"{_describe(mask)}"
        )
    real = torch.arange(mask.shape[1], device=targets.device) < lengths.to(targets.device).unsqueeze(1)
    mask = mask.to(targets.device) & real
    if not mask.any():
        raise ValueError("mask must leave at least one target that is not missing, got none")
    return mask, targets.where(mask.reshape(*mask.shape, *[1] * (targets.dim() - 2)), targets[mask][0])


def _is_integer_tensor(values: object) -> bool:
    return isinstance(values, Tensor) and not (
        values.is_floating_point() or values.is_complex() or values.dtype == torch.bool
    )


def _positive(name: str, value: int) -> int:
    return integer(name, value)


def _describe(values: object) -> str:
    return f"{values.dtype} {tuple(values.shape)}" if isinstance(values, Tensor) else f"{type(values).__name__}"
