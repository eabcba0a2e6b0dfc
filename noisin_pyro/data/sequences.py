"""Separate sequences, padded to the longest (``Sequences``)."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Self, TypeGuard, overload

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from noisin_pyro._lookup import integer
from noisin_pyro.data.batches import Batch, describe


class Sequences:
    """Separate sequences, possibly of different lengths, padded to the longest.

    Args:
        inputs: ``(N, T)`` indices or ``(N, T, features)``.
        targets: ``(N, T)`` indices or ``(N, T, features)``, which may be whole numbers or booleans; step ``t`` is
            predicted from inputs ``1..t``. Padding may have any values.
        lengths: number of real steps of each sequence, integers in ``1..T``, ``(N,)``; default: T for all.
        mask: ``(N, T)`` booleans, False where a target is missing; such targets may be NaN, and are in no density and
            in no count. Default: no target is missing.

    Raises:
        ValueError: shapes that do not match, a dtype other than floating point or integers, a length outside ``1..T``,
            no sequences, a mask that leaves no target, or values that are not finite (inputs in the padding as well,
            because masks are applied after the arithmetic).
    """

    _of_each_row: ClassVar[tuple[str, ...]] = (
        "inputs", "targets", "lengths", "mask", "_host_lengths", "_host_counts"
    )  # fmt: skip

    def __init__(
        self, inputs: Tensor, targets: Tensor, lengths: Tensor | None = None, mask: Tensor | None = None
    ) -> None:
        for name, values in (("inputs", inputs), ("targets", targets)):
            if not isinstance(values, Tensor) or values.dim() < 2 or 0 in values.shape[:2]:
                raise ValueError(
                    f"{name} must be a non-empty tensor of shape (sequences, time, ...), "
                    f"got {describe(values)}; for a single sequence use unsqueeze(0)"
                )
            are_bits = name == "targets" and values.dtype == torch.bool and values.dim() > 2
            if not (values.is_floating_point() or is_integer_tensor(values) or are_bits):
                raise ValueError(
                    f"{name} must be floating point or integers, got {values.dtype}; convert it with .to()"
                )
        inputs = inputs if inputs.is_floating_point() else inputs.long()
        if not targets.is_floating_point():  # indices, or vectors, whose densities are of real numbers
            dtype = inputs.dtype if inputs.is_floating_point() else torch.get_default_dtype()
            targets = targets.long() if targets.dim() == 2 else targets.to(dtype)
        if inputs.shape[:2] != targets.shape[:2]:
            raise ValueError(
                f"inputs and targets must have the same (sequences, time), got {tuple(inputs.shape[:2])} "
                f"and {tuple(targets.shape[:2])}; pad both to the longest sequence"
            )
        num_sequences, longest = inputs.shape[:2]
        if lengths is None:
            lengths = torch.full((num_sequences,), longest, device=inputs.device)
        if not is_integer_tensor(lengths) or lengths.shape != (num_sequences,):
            raise ValueError(f"lengths must be an integer tensor of shape ({num_sequences},), got {describe(lengths)}")
        if lengths.min() < 1 or lengths.max() > longest:
            raise ValueError(
                f"lengths must be in 1..{longest} (the time axis of inputs), got {int(lengths.min())} "
                f"to {int(lengths.max())}; drop empty sequences, pad inputs and targets to the longest"
            )
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
        batch_size = len(self) if batch_size is None else integer("batch_size", batch_size)
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

    def __repr__(self) -> str:
        lengths = self._host_lengths.tolist() or [0]
        steps = f"{min(lengths)} to {max(lengths)}" if min(lengths) < max(lengths) else f"{max(lengths)}"
        tensors = f"inputs {describe(self.inputs)}, targets {describe(self.targets)}"
        return f"{type(self).__name__}({len(self)} of {steps} steps, {self.num_steps} scored; {tensors})"

    @overload
    def __getitem__(self, index: int) -> Batch: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> Self: ...

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> Batch | Self:
        """One sequence without padding, as a batch of one, or the data set of several: a slice, a list or a tensor.

        :func:`collate` joins several, as for a ``DataLoader``.
        """
        if isinstance(index, int) or getattr(index, "ndim", 1) == 0:
            return self._batch(torch.tensor([range(len(self))[operator.index(index)]]))  # type: ignore[arg-type]
        return self.rows(index)

    def until(self, lengths: Tensor) -> Self:
        """The same sequences, each up to a length from 1 to its own, ``(N,)``."""
        part = copy.copy(self)
        part.lengths = lengths.to(self.lengths)
        part._host_lengths = part._host_counts = part.lengths.cpu()
        if self.mask is not None:
            part.mask = self.mask & ~part.beyond
            part._host_counts = part.mask.sum(1).cpu()
        return part

    @property
    def beyond(self) -> Tensor:
        """Which steps are padding, ``(N, T)``."""
        return torch.arange(self.targets.shape[1], device=self.lengths.device) >= self.lengths.unsqueeze(1)

    def __iter__(self) -> Iterator[Batch]:
        return (self[index] for index in range(len(self)))

    def rows(self, index: slice | Sequence[int] | Tensor) -> Self:
        """The data set of these sequences: a slice, indices, or a boolean for each.

        Raises:
            ValueError: no sequence.
        """
        part, rows = copy.copy(self), torch.arange(len(self))[index]
        if not len(rows):
            raise ValueError(f"index must select at least one of {len(self)} sequences, got {index!r}")
        for name in self._of_each_row:
            values = getattr(self, name)
            if isinstance(index, slice):
                values = values if values is None else values[index]
            elif isinstance(values, Tensor):
                values = values[rows.to(values.device)]
            elif values is not None:
                values = [values[row] for row in rows.tolist()]
            setattr(part, name, values)
        return part

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """Copy to ``device``, with floating-point values converted to ``dtype`` if it is given."""
        moved = copy.copy(self)
        for name in self._of_each_row:
            values = getattr(self, name)
            if isinstance(values, Tensor) and not name.startswith("_host"):
                setattr(moved, name, values.to(device, dtype if values.is_floating_point() else None))
        return moved


def collate(items: Sequence[Batch]) -> Batch:
    """The sequences of several batches as one, padded to the longest.

    ``DataLoader(data, batch_size=8, shuffle=True, collate_fn=collate)`` iterates over :class:`Sequences`.
    """
    lengths, mask = torch.cat([item.real_lengths for item in items]), None
    if any(item.mask is not None for item in items):
        every = [item.targets.new_ones(item.targets.shape[:2], dtype=torch.bool) for item in items]
        mask = _padded(own if item.mask is None else item.mask for item, own in zip(items, every, strict=True))
    targets = _padded(item.targets for item in items)
    ragged = bool((lengths < targets.shape[1]).any())
    return Batch(_padded(item.inputs for item in items), targets, lengths if ragged else None, carried=False, mask=mask)


def _padded(parts: Iterable[Tensor]) -> Tensor:
    return pad_sequence([row for part in parts for row in part], batch_first=True)


def _without_missing(mask: Tensor | None, targets: Tensor, lengths: Tensor) -> tuple[Tensor | None, Tensor]:
    """The mask without padding, and the targets with the first that is scored in place of all that are not.

    That value is in the support of their density, whose gradient is then finite.
    """
    real = torch.arange(targets.shape[1], device=targets.device) < lengths.to(targets.device).unsqueeze(1)
    if mask is None:
        are_zeros = (targets == 0).reshape(*real.shape, -1).all(-1)  # the usual padding, which stays as it is
        return None, _with_first(targets, real | are_zeros)
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != targets.shape[:2]:
        raise ValueError(
            f"mask must be a boolean tensor of shape {tuple(targets.shape[:2])}, False where a target is missing, got "
            f"{describe(mask)}"
        )
    mask = mask.to(targets.device) & real
    if not mask.any():
        raise ValueError("mask must leave at least one target that is not missing, got none")
    return mask, _with_first(targets, mask)


def _with_first(targets: Tensor, scored: Tensor) -> Tensor:
    if scored.all():
        return targets
    return targets.where(scored.reshape(*scored.shape, *[1] * (targets.dim() - 2)), targets[scored][0])


def is_integer_tensor(values: object) -> TypeGuard[Tensor]:
    """Whether something is a tensor of whole numbers, not of booleans."""
    return isinstance(values, Tensor) and not (
        values.is_floating_point() or values.is_complex() or values.dtype == torch.bool
    )
