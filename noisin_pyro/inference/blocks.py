"""Splitting of draws, sequences or steps into blocks, to bound memory use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MAX_NUMEL = 2**24
"""Maximum number of elements of a tensor in one block."""


def block_size(numel: int) -> int:
    """Number of items per block, at least 1, if the largest tensor has ``numel`` elements per item."""
    return max(1, MAX_NUMEL // numel)


def blocks(total: int, size: int) -> Iterator[slice]:
    """Consecutive slices of ``size`` items that cover ``total`` items; the last may be shorter."""
    return (slice(start, min(start + size, total)) for start in range(0, total, size))


class LargestTensor(TorchDispatchMode):
    """Records the size of the largest tensor that any operation returns while the mode is active.

    Attributes:
        numel: number of elements of that tensor, at least 1.
    """

    numel = 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.numel = max(self.numel, *(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)), 1)
        return result
