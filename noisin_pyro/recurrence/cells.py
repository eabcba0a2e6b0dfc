"""The transitions f(x_{t-1}, z_{t-1}) of section 2.1: one class for each cell, in torch's parametrization.

Shapes: B batch, T time, H units, G = gates · H; any dimensions may stand before B.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from noisin_pyro._lookup import integer
from noisin_pyro.recurrence import scan_cells
from noisin_pyro.recurrence.scan_base import ScanCell


class Weights(NamedTuple):
    """One layer's weights in torch's layout: ``(G, I)``, ``(G, H)``, ``(G,)``, ``(G,)``.

    Where they are sampled, the samples' dimensions stand in front: ``(..., G, I)``.
    """

    ih: Tensor
    hh: Tensor
    bias_ih: Tensor
    bias_hh: Tensor

    @property
    def are_shared(self) -> bool:
        """Whether one set of weights serves the whole batch, as fused kernels and scans need."""
        return self.ih.dim() == 2 and self.hh.dim() == 2 and self.bias_ih.dim() == 1 and self.bias_hh.dim() == 1


@dataclass(frozen=True)
class FusedKernel:
    """A fused kernel of torch (cuDNN, oneDNN) that runs a deterministic cell.

    Attributes:
        name: the kernel's name in ``torch``.
        additive_noise: whether it also runs the cell with additive noise. That needs a state that enters through W_hh
            alone (``fused.py``).
        sigmoid_as_tanh: whether the cell is a sigmoid, which a tanh kernel runs with rescaled weights.
    """

    name: str
    additive_noise: bool = True
    sigmoid_as_tanh: bool = False


class Cell(ABC):
    """The mean of the next state, computed from the projections of an input and a state.

    Subclass it for a cell of your own, and give an instance to :class:`NoisyRNN`: define ``step``, and declare any
    attribute below that differs from its default. Derivatives come from autograd::

        class Softsign(Cell):
            range = (-1.0, 1.0)

            def step(self, a, p, z, c):
                return torch.nn.functional.softsign(a + p), None

        rnn = NoisyRNN(3, 8, cell=Softsign())

    A cell with parameters is also an ``nn.Module``: ``class Leaky(Cell, nn.Module)``.

    Such a cell runs in the loop, the reference backend. ``fused_kernel``, ``scan_cell`` and ``all_steps`` are faster
    ways to compute one particular ``step``, so a subclass that overrides ``step`` does not inherit them.

    Attributes:
        name: what messages call it; by default the class's name in lower case.
        gates: how many blocks of H rows each weight has.
        range: the interval that the mean stays in.
        attains_range: whether the mean can reach the ends of ``range``.
        has_memory: whether a second state (the LSTM's c) is carried along.
        fused_kernel: the library's fused kernel of the cell, or None.
        scan_cell: the cell's steps with an explicit gradient, or None.
    """

    name: str
    gates: int = 1
    range: tuple[float, float] = (-math.inf, math.inf)
    attains_range: bool = False
    has_memory: bool = False
    fused_kernel: FusedKernel | None = None
    scan_cell: ScanCell | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if not hasattr(cls, "name"):
            cls.name = cls.__name__.lower()
        for capability in ("fused_kernel", "scan_cell", "all_steps"):
            # The nearest class that defines either: if it overrides ``step`` alone, the capability is of another step.
            nearest = next(names for names in map(vars, cls.__mro__) if "step" in names or capability in names)
            if capability not in nearest:
                setattr(cls, capability, getattr(Cell, capability))

    @abstractmethod
    def step(self, a: Tensor, p: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """One transition.

        Args:
            a: the input's projection W_ih x + b_ih, ``(..., B, G)``.
            p: the state's projection W_hh z + b_hh, ``(..., B, G)``.
            z: the state z_{t-1}, ``(..., B, H)``.
            c: the memory c_{t-1}, ``(..., B, H)``, or None.

        Returns:
            the mean of z_t, ``(..., B, H)``, and c_t.
        """

    def all_steps(self, a: Tensor, p: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """All T transitions at once, given the states.

        Arguments and results are those of ``step`` with a time axis before the last one, except for ``c``, which is
        c_0.
        """
        if not self.has_memory:
            return self.step(a, p, z, c)
        means, memories = [], []
        for a_t, p_t, z_t in zip(a.unbind(-2), p.unbind(-2), z.unbind(-2), strict=True):
            mean, c = self.step(a_t, p_t, z_t, c)
            means.append(mean)
            memories.append(c)
        return torch.stack(means, -2), torch.stack(memories, -2)

    def check(self, hidden_size: int) -> None:
        """Check the declared attributes, and ``step`` on one row of zeros; :class:`NoisyRNN` calls it at construction.

        Raises:
            ValueError: for an attribute with a value that a cell can't have, or results of ``step`` of another shape.
        """
        kind = type(self).__name__
        if not isinstance(self.name, str):
            raise ValueError(f"cell: {kind}.name must be a string, got {self.name!r}; declare it")
        integer(f"cell: {kind}.gates", self.gates)
        is_pair = isinstance(self.range, tuple) and [isinstance(end, (int, float)) for end in self.range] == [True] * 2
        if not (is_pair and self.range[0] < self.range[1]):
            raise ValueError(f"cell: {kind}.range must be a pair (low, high) with low < high, got {self.range!r}")
        for flag in ("attains_range", "has_memory"):
            if not isinstance(getattr(self, flag), bool):
                raise ValueError(f"cell: {kind}.{flag} must be True or False, got {getattr(self, flag)!r}")
        like = next(iter(self.parameters()), torch.zeros(())) if isinstance(self, nn.Module) else torch.zeros(())
        projection, z = like.new_zeros(1, self.gates * hidden_size), like.new_zeros(1, hidden_size)
        try:
            with torch.no_grad():
                results = self.step(projection, projection, z, z if self.has_memory else None)
            shapes = [tuple(result.shape) if isinstance(result, Tensor) else result for result in results]
        except Exception as error:  # it is the user's code
            raise ValueError(
                f"cell: {kind}.step(a, p, z, c) fails on a and p of shape {tuple(projection.shape)} and z of shape "
                f"{tuple(z.shape)} ({type(error).__name__}: {error}); a and p have gates · units columns"
            ) from error
        expected = [tuple(z.shape), tuple(z.shape) if self.has_memory else None]
        if shapes != expected:
            raise ValueError(
                f"cell: {kind}.step must return the mean and the memory, of shapes {expected} where gates is "
                f"{self.gates} and has_memory {self.has_memory}, got {shapes}"
            )


class Tanh(Cell):
    """h_t = tanh(a + p)."""

    name, range = "tanh", (-1.0, 1.0)
    fused_kernel, scan_cell = FusedKernel("rnn_tanh"), scan_cells.TANH

    def step(self, a: Tensor, p: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, None]:
        return torch.tanh(a + p), None


class Sigmoid(Cell):
    """h_t = σ(a + p)."""

    # An open interval: float32 can round σ to 0 or 1, which NoisyPath clamps for families that need the inside.
    name, range = "sigmoid", (0.0, 1.0)
    fused_kernel, scan_cell = FusedKernel("rnn_tanh", sigmoid_as_tanh=True), scan_cells.SIGMOID

    def step(self, a: Tensor, p: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, None]:
        return torch.sigmoid(a + p), None


class Relu(Cell):
    """h_t = max(a + p, 0)."""

    # It attains 0, an atom of multiplicative noise and an end of native gamma's means.
    name, range, attains_range = "relu", (0.0, math.inf), True
    fused_kernel, scan_cell = FusedKernel("rnn_relu"), scan_cells.RELU

    def step(self, a: Tensor, p: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, None]:
        return torch.relu(a + p), None


class Identity(Cell):
    """h_t = a + p: with Gaussian noise and emission the model is linear-Gaussian, and its likelihood known exactly."""

    name, scan_cell = "identity", scan_cells.IDENTITY

    def step(self, a: Tensor, p: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, None]:
        return a + p, None


class LSTM(Cell):
    """i, f, o = σ(·), g = tanh(·) of the blocks of a + p;  c_t = f c_{t-1} + i g;  h_t = o tanh(c_t)."""

    name, gates, range, has_memory = "lstm", 4, (-1.0, 1.0), True
    fused_kernel, scan_cell = FusedKernel("lstm"), scan_cells.LSTMScan()

    def step(self, a: Tensor, p: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        assert c is not None
        i, f, g, o = (a + p).chunk(4, -1)  # torch's order of the blocks, so that its state dicts load
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c

    def all_steps(self, a: Tensor, p: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor]:
        assert c is not None
        i, f, g, o = (a + p).chunk(4, -1)
        memories = []  # only c depends on its own past; the gates and the output are computed for all steps at once
        for keep, write in zip(torch.sigmoid(f).unbind(-2), (torch.sigmoid(i) * torch.tanh(g)).unbind(-2), strict=True):
            c = keep * c + write
            memories.append(c)
        memory = torch.stack(memories, -2)
        return torch.sigmoid(o) * torch.tanh(memory), memory


class GRU(Cell):
    """r = σ(a_r + p_r), u = σ(a_u + p_u), n = tanh(a_n + r p_n);  h_t = (1 - u) n + u z_{t-1}.

    It has no range: the mean carries over a share of the noisy z_{t-1}. And z_{t-1} enters it past W_hh, so the fused
    kernel runs it without noise only.
    """

    name, gates = "gru", 3
    fused_kernel, scan_cell = FusedKernel("gru", additive_noise=False), scan_cells.GRUScan()

    def step(self, a: Tensor, p: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, None]:
        a_reset, a_update, a_new = a.chunk(3, -1)
        p_reset, p_update, p_new = p.chunk(3, -1)
        # reset multiplies p_n with its bias b_hn, as in torch and cuDNN, not z as in the original GRU
        update = torch.sigmoid(a_update + p_update)
        new = torch.tanh(a_new + torch.sigmoid(a_reset + p_reset) * p_new)
        return (1 - update) * new + update * z, None


CELLS: dict[str, type[Cell]] = {cell.name: cell for cell in (Tanh, Sigmoid, Relu, Identity, LSTM, GRU)}
