"""The transitions f(x_{t-1}, z_{t-1}) of section 2.1: one class a cell, in torch's parametrisation.

Shapes: B batch, T time, H units, G = gates * H; any dimensions may stand before B.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Cell(ABC):
    """The mean of the next state, from an input's and a state's projections.

    Attributes:
        gates: how many blocks of H rows each weight has.
        range: the interval that the mean stays in; ``attains_range`` says whether it can reach its ends.
        has_memory: whether a second state (the LSTM's c) is carried along.
        kernel: the library's fused kernel of the deterministic cell (a name in ``torch._VF``), if it has one.
        reducible: whether the kernel also runs it with additive noise (``scan.py``).
    """

    name: str
    gates: int = 1
    range: tuple[float, float] = (-math.inf, math.inf)
    attains_range: bool = False
    has_memory: bool = False
    kernel: str | None = None
    reducible: bool = False

    @abstractmethod
    def step(self, a: Tensor, r: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """One transition.

        Args:
            a: the input's projection W_ih x + b_ih, ``(..., B, G)``.
            r: the state's projection W_hh z + b_hh, ``(..., B, G)``.
            z: the state z_{t-1}, ``(..., B, H)``.
            c: the memory c_{t-1}, ``(..., B, H)``, or None.

        Returns:
            the mean of z_t, ``(..., B, H)``, and c_t.
        """

    def steps(self, a: Tensor, r: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """All T transitions at once, the states being known: the arguments of ``step`` with a time axis before the
        last one (``c`` excepted, which is c_0), and so the results."""
        return self.step(a, r, z, c)


class Tanh(Cell):
    name, range, kernel, reducible = "tanh", (-1.0, 1.0), "rnn_tanh", True

    def step(self, a: Tensor, r: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, None]:
        return torch.tanh(a + r), None


class Sigmoid(Cell):
    name, range, kernel, reducible = "sigmoid", (0.0, 1.0), "rnn_tanh", True

    def step(self, a: Tensor, r: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, None]:
        return torch.sigmoid(a + r), None


class Relu(Cell):
    name, range, attains_range, kernel, reducible = "relu", (0.0, math.inf), True, "rnn_relu", True

    def step(self, a: Tensor, r: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, None]:
        return torch.relu(a + r), None


class Identity(Cell):
    name = "identity"

    def step(self, a: Tensor, r: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, None]:
        return a + r, None


class LSTM(Cell):
    name, gates, range, has_memory, kernel, reducible = "lstm", 4, (-1.0, 1.0), True, "lstm", True

    def step(self, a: Tensor, r: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        assert c is not None
        i, f, g, o = (a + r).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def steps(self, a: Tensor, r: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        assert c is not None
        i, f, g, o = (a + r).chunk(4, -1)
        memories = []
        for keep, write in zip(torch.sigmoid(f).unbind(-2), (torch.sigmoid(i) * torch.tanh(g)).unbind(-2), strict=True):
            c = keep * c + write
            memories.append(c)
        memory = torch.stack(memories, -2)
        return torch.sigmoid(o) * torch.tanh(memory), memory


class GRU(Cell):
    name, gates, kernel = "gru", 3, "gru"  # no range: the mean holds a share of the noisy z_{t-1}

    def step(self, a: Tensor, r: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, None]:
        a_reset, a_update, a_new = a.chunk(3, -1)
        r_reset, r_update, r_new = r.chunk(3, -1)
        update = torch.sigmoid(a_update + r_update)
        new = torch.tanh(a_new + torch.sigmoid(a_reset + r_reset) * r_new)
        return (1 - update) * new + update * z, None


CELLS: dict[str, type[Cell]] = {cell.name: cell for cell in (Tanh, Sigmoid, Relu, Identity, LSTM, GRU)}
