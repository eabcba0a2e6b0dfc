"""The means that noise is drawn around: a recurrence that the noise feeds back into, or a fixed trajectory."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from noisin_pyro.noise import Family
from noisin_pyro.recurrence import fused
from noisin_pyro.recurrence.cells import Cell, Weights
from noisin_pyro.recurrence.dispatch import choose_backend
from noisin_pyro.recurrence.matmul import check_bfloat16_operands, fast_linear, linear, needs_torch_operations
from noisin_pyro.recurrence.scan import scan
from noisin_pyro.recurrence.scan_base import ScanArguments

Shape = tuple[int, ...]


class Transition(ABC):
    """The means of z_{1:T}, each given the states before it. B batch, T time, H units."""

    @property
    @abstractmethod
    def batch_shape(self) -> torch.Size: ...

    @property
    @abstractmethod
    def event_shape(self) -> torch.Size:
        """(T, H)."""

    @abstractmethod
    def expand(self, batch_shape: Shape) -> Transition:
        """The same means for a larger batch, sharing every projection."""

    @abstractmethod
    def means(self, z: Tensor, family: Family | None = None) -> tuple[Tensor, Tensor | None]:
        """All means at once, given z_{1:T} ``(..., B, T, H)``, and the memories c_{1:T}.

        The precision is that of a draw with noise of this family; None for a deterministic layer.
        """

    @abstractmethod
    def mean_error(self, family: Family) -> float:
        """Absolute error of ``means`` beside those of a draw, which sums in another order."""

    @abstractmethod
    def loop(self, draw: Callable[[int, Tensor], Tensor]) -> tuple[Tensor, Tensor | None]:
        """z_{1:T} where z_t = draw(t, mean_t), step by step from t = 0, and the last memory."""

    @abstractmethod
    def transport(self, family: Family, spread: Tensor, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        """z_{1:T} from the standardized noise ε_{1:T}, both ``(..., B, T, H)``, and the last memory."""

    @abstractmethod
    def clean(self) -> tuple[Tensor, Tensor | None]:
        """The deterministic trajectory h_{1:T}: no noise at any step; and the last memory."""


@dataclass(frozen=True)
class FixedMeans(Transition):
    """Means that do not depend on z: noisy inputs, and noise on the output alone."""

    mean: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        return torch.Size(self.mean.shape[:-2])  # a tensor subclass may have a tuple

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size(self.mean.shape[-2:])

    def expand(self, batch_shape: Shape) -> FixedMeans:
        return FixedMeans(self.mean.expand(*batch_shape, *self.event_shape))

    def means(self, z: Tensor, family: Family | None = None) -> tuple[Tensor, None]:
        return self.mean, None

    def mean_error(self, family: Family) -> float:
        return 0.0

    def loop(self, draw: Callable[[int, Tensor], Tensor]) -> tuple[Tensor, None]:
        return torch.stack([draw(t, mean) for t, mean in enumerate(self.mean.unbind(-2))], -2), None

    def transport(self, family: Family, spread: Tensor, noise: Tensor) -> tuple[Tensor, None]:
        return self.mean + family.scale(self.mean, spread) * noise, None

    def clean(self) -> tuple[Tensor, None]:
        return self.mean, None


@dataclass(frozen=True)
class Recurrence(Transition):
    """f(x_{t-1}, z_{t-1}) of a cell (paper, section 3).

    Attributes:
        cell: the cell.
        weights: the layer's.
        inputs: x, ``(..., B, T, I)``.
        z, c: the states before the first step, z_0 and c_0, ``(..., B, H)``.
        backend: one of ``BACKENDS`` (``dispatch.py``).
        matmul_precision: of the scan's products, ``"float32"`` or ``"bfloat16"``.
        mask: m of recurrent dropout, ``(..., B, H)``, the same at all steps: W_hh multiplies m ⊙ z_{t-1}.
    """

    cell: Cell
    weights: Weights
    inputs: Tensor
    z: Tensor
    c: Tensor | None = None
    backend: str = "auto"
    matmul_precision: str = "float32"
    mask: Tensor | None = None

    @property
    def batch_shape(self) -> torch.Size:
        mask_shape = self.z.shape[:-1] if self.mask is None else self.mask.shape[:-1]
        shapes = self.inputs.shape[:-2], self.z.shape[:-1], mask_shape
        if self.weights.are_shared:
            return common_shape(*shapes)
        ih, hh, bias_ih, bias_hh = self.weights
        return common_shape(*shapes, ih.shape[:-2], hh.shape[:-2], bias_ih.shape[:-1], bias_hh.shape[:-1])

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size([self.inputs.shape[-2], self.z.shape[-1]])

    def expand(self, batch_shape: Shape) -> Recurrence:
        z, c = (s if s is None else s.expand(*batch_shape, s.shape[-1]) for s in (self.z, self.c))
        assert z is not None
        return replace(self, z=z, c=c)

    def means(self, z: Tensor, family: Family | None = None) -> tuple[Tensor, Tensor | None]:
        # Given z, the means of all steps are independent: the cell computes them in one call, with one matrix product.
        batch = common_shape(z.shape[:-2], self.z.shape[:-1])
        start = self.z.expand(*batch, z.shape[-1]).unsqueeze(-2)
        previous = torch.cat([start, z[..., :-1, :].expand(*batch, -1, -1)], -2)
        masked = previous if self.mask is None else previous * self.mask.unsqueeze(-2)
        ih, hh, bias_ih, bias_hh = self.weights
        if self._precision(family) == "bfloat16":
            a = fast_linear(self.inputs, ih, bias_ih, "bfloat16")
            p = fast_linear(masked, hh, bias_hh, "bfloat16")
        else:
            a, p = self._input_projections(), linear(masked, hh, bias_hh)
        return self.cell.all_steps(a, p, previous, self.c)

    def mean_error(self, family: Family) -> float:
        # The terms of a sum are taken to be of size 1. Two products of the same bfloat16 numbers, summed in another
        # order, are rarely rounded to different neighbors.
        return 2**-12 if self._precision(family) == "bfloat16" else torch.finfo(self.z.dtype).eps

    def _precision(self, family: Family | None) -> str:
        """The precision of the matrix products in a draw. Only the scan multiplies in bfloat16."""
        if self.matmul_precision == "float32" or not (family is None or family.has_innovations):
            return "float32"
        return self.matmul_precision if self._backend(family, 1) == "scan" else "float32"

    def loop(self, draw: Callable[[int, Tensor], Tensor]) -> tuple[Tensor, Tensor | None]:
        z, c, path = self.z, self.c, []
        for t, a in enumerate(self._input_projections().unbind(-2)):
            # The cell gets z itself beside the masked projection: a GRU carries it over unmasked.
            masked = z if self.mask is None else z * self.mask
            p = linear(masked.unsqueeze(-2), self.weights.hh, self.weights.bias_hh).squeeze(-2)
            mean, c = self.cell.step(a, p, z, c)
            z = draw(t, mean)
            path.append(z)
        return torch.stack(path, -2), c

    def transport(self, family: Family, spread: Tensor, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        backend = self._backend(family, math.prod(noise.shape[:-2]), spread, noise)
        if backend == "loop":
            # z_t = h_t + s(h_t, γ) ε_t, s = γ or γ h_t or a scale of the family's own
            step_spread, noises = spread.squeeze(-2), noise.unbind(-2)
            return self.loop(lambda t, mean: mean + family.scale(mean, step_spread) * noises[t])
        delta = spread * noise  # γ ε of all steps at once, and so the gradient of γ in one sum
        if backend == "scan":
            # h + h ⊙ γ ε as h ⊙ (1 + γ ε): one operation a step, as for additive noise
            return self._scan(shift=delta) if family.form == "additive" else self._scan(factor=1 + delta)
        h, c = fused.with_additive_noise(self.cell, self.weights, self.inputs, delta, self.z, self.c)
        return h + delta, c

    def clean(self) -> tuple[Tensor, Tensor | None]:
        backend = self._backend(None, math.prod(self.batch_shape))
        if backend == "loop":
            return self.loop(lambda _, mean: mean)
        if backend == "scan":
            return self._scan()
        return fused.deterministic(self.cell, self.weights, self.inputs, self.z, self.c)

    def _backend(self, family: Family | None, rows: int, *noise: Tensor) -> str:
        if needs_torch_operations(self.inputs, self.z, self.c, self.mask, *self.weights, *noise):
            return "loop"  # whatever was asked for: a property of this call, not of the layer
        numel = rows * self.event_shape[1]  # of one step: what decides which backend is faster
        shared, is_masked = self.weights.are_shared, self.mask is not None
        device, precision = self.inputs.device, self.matmul_precision
        return choose_backend(self.backend, self.cell, family, shared, device, numel, precision, is_masked)

    def _scan(self, factor: Tensor | None = None, shift: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The scan with time first and all dimensions before it flattened to rows; noise as in ``ScanArguments``."""
        ih, hh, bias_ih, bias_hh = self.weights
        if self.matmul_precision == "bfloat16":
            check_bfloat16_operands(self.inputs, ih, bias_ih)
        assert self.cell.scan_cell is not None
        separate_bias = self.cell.scan_cell.separate_bias_hh
        batch = self.batch_shape
        for noise in (factor, shift):
            if noise is not None and noise.shape[:-2] != batch:
                batch = torch.broadcast_shapes(batch, noise.shape[:-2])
        # Projected before it is expanded, so once for all particles that share the inputs; with time in front, so that
        # ``by_time`` copies nothing where they don't.
        bias = bias_ih if separate_bias else bias_ih + bias_hh
        a = fast_linear(self.inputs.movedim(-2, 0), ih, bias, self.matmul_precision).movedim(0, -2)

        def by_time(path: Tensor) -> Tensor:
            """``(..., B, T, K)`` to contiguous ``(T, R, K)``, as products of single steps need."""
            path = path.expand(*batch, *path.shape[-2:]).movedim(-2, 0)
            return path.reshape(len(path), -1, path.shape[-1]).contiguous()

        z_0, c_0, mask = (
            state if state is None else state.expand(*batch, state.shape[-1]).reshape(-1, state.shape[-1])
            for state in (self.z, self.c, self.mask)
        )
        args = ScanArguments(
            a=by_time(a),
            weight_hh=hh,
            bias_hh=bias_hh if separate_bias else None,
            z_0=z_0,
            c_0=c_0,
            mask=mask,
            factor=None if factor is None else by_time(factor),
            shift=None if shift is None else by_time(shift),
        )
        path, memory = scan(self.cell, args, self.matmul_precision)
        path = path.reshape(len(path), *batch, path.shape[-1]).movedim(0, -2)
        # The scan saved its path for backward, and autograd forbids writing to such a view: the user gets a copy.
        path = path.clone(memory_format=torch.contiguous_format)
        return path, None if memory is None else memory.reshape(*batch, memory.shape[-1])

    def final(
        self, z: Tensor, last: Tensor | None, lengths: Tensor | None, family: Family | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The state to continue from: z and c at each sequence's end, ``(..., B, H)``.

        Args:
            z: the trajectory z_{1:T}, noisy or clean.
            last: c_T, if known; otherwise it is recomputed from z.
            lengths: ``(B,)``, 0 for a sequence that keeps the state carried in; None for T everywhere.
            family: the noise of the trajectory; None for a clean one.
        """
        memory = None
        if self.cell.has_memory and (last is None or lengths is not None):
            _, memory = self.means(z, family)  # kernels and scans return c_T only; lengths need c at every step
        if lengths is None:
            return z[..., -1, :], last if memory is None else memory[..., -1, :]
        return self._at(self.z, z, lengths), None if memory is None else self._at(self.c, memory, lengths)

    @staticmethod
    def _at(start: Tensor | None, path: Tensor, lengths: Tensor) -> Tensor:
        assert start is not None
        # A sequence of length 0 ends in the state carried in, so that goes in front, at index 0. The gather leaves
        # lengths on the device, where reading them would wait.
        batch = common_shape(start.shape[:-1], path.shape[:-2])
        path, start = path.expand(*batch, -1, -1), start.expand(*batch, -1).unsqueeze(-2)
        index = lengths[..., None, None].expand(*batch, 1, path.shape[-1])
        return torch.cat([start, path], -2).gather(-2, index).squeeze(-2)

    def _input_projections(self) -> Tensor:
        return linear(self.inputs, self.weights.ih, self.weights.bias_ih)


def common_shape(*shapes: torch.Size) -> torch.Size:
    """``torch.broadcast_shapes``, without the time that it takes if all shapes are the same, as they usually are."""
    return shapes[0] if all(shape == shapes[0] for shape in shapes) else torch.broadcast_shapes(*shapes)
