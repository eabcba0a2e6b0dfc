"""What the noise is centred on: a recurrence that the noise feeds back into, or a trajectory that is given."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from noisin_pyro.models import kernels
from noisin_pyro.models.by_hand import Noise, scan
from noisin_pyro.models.cells import Cell
from noisin_pyro.models.engine import chosen
from noisin_pyro.models.kernels import Weights
from noisin_pyro.models.products import fast_linear, require_plain
from noisin_pyro.noise import Family

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
    def means(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """All means at once, given z_{1:T} ``(..., B, T, H)``, and the memories c_{1:T}."""

    @abstractmethod
    def loop(self, draw: Callable[[int, Tensor], Tensor]) -> tuple[Tensor, Tensor | None]:
        """z_{1:T} where z_t = draw(t, mean_t), step by step from t = 0, and the last memory."""

    @abstractmethod
    def transport(self, family: Family, spread: Tensor, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        """z_{1:T} from the standardised noise ε_{1:T}, both ``(..., B, T, H)``, and the last memory."""

    @abstractmethod
    def clean(self) -> tuple[Tensor, Tensor | None]:
        """The deterministic trajectory h_{1:T}: no noise at any step; and the last memory."""


@dataclass(frozen=True)
class Given(Transition):
    """Means that do not depend on z: noisy inputs, and noise on the output alone."""

    mean: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        return self.mean.shape[:-2]

    @property
    def event_shape(self) -> torch.Size:
        return self.mean.shape[-2:]

    def expand(self, batch_shape: Shape) -> Given:
        return Given(self.mean.expand(*batch_shape, *self.event_shape))

    def means(self, z: Tensor) -> tuple[Tensor, None]:
        return self.mean, None

    def loop(self, draw: Callable[[int, Tensor], Tensor]) -> tuple[Tensor, None]:
        return torch.stack([draw(t, mean) for t, mean in enumerate(self.mean.unbind(-2))], -2), None

    def transport(self, family: Family, spread: Tensor, noise: Tensor) -> tuple[Tensor, None]:
        return self.mean + family.scale(self.mean, spread) * noise, None

    def clean(self) -> tuple[Tensor, None]:
        return self.mean, None


@dataclass(frozen=True)
class Recurrence(Transition):
    """f(x_{t-1}, z_{t-1}) of a cell (paper, section 3): x ``(..., B, T, I)``, z_0 and c_0 ``(..., B, H)``.

    With a mask m ``(..., B, H)`` (``regularizers.py``) it is m ⊙ z_{t-1} that W_hh multiplies, at all steps.
    """

    cell: Cell
    weights: Weights
    inputs: Tensor
    z: Tensor
    c: Tensor | None = None
    engine: str = "auto"
    products: str = "float32"
    mask: Tensor | None = None

    @property
    def batch_shape(self) -> torch.Size:
        masked = self.z.shape[:-1] if self.mask is None else self.mask.shape[:-1]
        if self.weights.are_shared and self.inputs.shape[:-2] == self.z.shape[:-1] == masked:
            return self.z.shape[:-1]  # as a rule, and broadcast_shapes takes its time
        sampled = [w.shape[:-2] for w in self.weights[:2]] + [b.shape[:-1] for b in self.weights[2:]]
        return torch.broadcast_shapes(self.inputs.shape[:-2], self.z.shape[:-1], masked, *sampled)

    @property
    def event_shape(self) -> torch.Size:
        return torch.Size([self.inputs.shape[-2], self.z.shape[-1]])

    def expand(self, batch_shape: Shape) -> Recurrence:
        z, c = (s if s is None else s.expand(*batch_shape, s.shape[-1]) for s in (self.z, self.c))
        assert z is not None
        return replace(self, z=z, c=c)

    def means(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        start = self.z.expand(*z.shape[:-2], z.shape[-1]).unsqueeze(-2)
        previous = torch.cat([start, z[..., :-1, :]], -2)
        fed = previous if self.mask is None else previous * self.mask.unsqueeze(-2)
        r = linear(fed, self.weights.hh, self.weights.bias_hh)
        return self.cell.steps(self._projections(), r, previous, self.c)

    def loop(self, draw: Callable[[int, Tensor], Tensor]) -> tuple[Tensor, Tensor | None]:
        z, c, path = self.z, self.c, []
        for t, a in enumerate(self._projections().unbind(-2)):
            fed = z if self.mask is None else z * self.mask
            r = linear(fed.unsqueeze(-2), self.weights.hh, self.weights.bias_hh).squeeze(-2)
            mean, c = self.cell.step(a, r, z, c)
            z = draw(t, mean)
            path.append(z)
        return torch.stack(path, -2), c

    def transport(self, family: Family, spread: Tensor, noise: Tensor) -> tuple[Tensor, Tensor | None]:
        way = self._way(family, math.prod(noise.shape[:-2]))
        if way == "loop":
            step_spread, noises = spread.squeeze(-2), noise.unbind(-2)
            return self.loop(lambda t, mean: mean + family.scale(mean, step_spread) * noises[t])
        delta = spread * noise
        if way == "scan":
            return self._scan(Noise(shift=delta) if family.form == "additive" else Noise(factor=1 + delta))
        h, c = kernels.with_additive_noise(self.cell, self.weights, self.inputs, delta, self.z, self.c)
        return h + delta, c

    def clean(self) -> tuple[Tensor, Tensor | None]:
        way = self._way(None, self.batch_shape.numel())
        if way == "loop":
            return self.loop(lambda _, mean: mean)
        if way == "scan":
            return self._scan(Noise())
        return kernels.deterministic(self.cell, self.weights, self.inputs, self.z, self.c)

    def _way(self, family: Family | None, rows: int) -> str:
        numbers = rows * self.event_shape[1]
        shared, masked = self.weights.are_shared, self.mask is not None
        return chosen(self.engine, self.cell, family, shared, self.inputs.device, numbers, self.products, masked)

    def _scan(self, noise: Noise) -> tuple[Tensor, Tensor | None]:
        """The same by hand, where time comes first and all that stands before it is one dimension of rows."""
        ih, hh, bias_ih, bias_hh = self.weights
        if self.products == "bfloat16":
            require_plain(self.inputs, ih, bias_ih)
        is_gru = self.cell.name == "gru"
        (changed,) = {part.shape[:-2] for part in noise if part is not None} or {self.batch_shape}
        batch = changed if changed == self.batch_shape else torch.broadcast_shapes(self.batch_shape, changed)
        # projected with time in front, and once for all particles that share the inputs
        bias = bias_ih if is_gru else bias_ih + bias_hh
        a = fast_linear(self.inputs.movedim(-2, 0), ih, bias, self.products).movedim(0, -2)

        def rows(path: Tensor) -> Tensor:
            path = path.expand(*batch, *path.shape[-2:]).movedim(-2, 0)
            return path.reshape(len(path), -1, path.shape[-1]).contiguous()

        z, c, mask = (
            s if s is None else s.expand(*batch, s.shape[-1]).reshape(-1, s.shape[-1])
            for s in (self.z, self.c, self.mask)
        )
        assert z is not None
        changes = Noise(*(part if part is None else rows(part) for part in noise))
        path, memory = scan(self.cell, rows(a), hh, bias_hh if is_gru else None, z, c, changes, self.products, mask)
        path = path.reshape(len(path), *batch, path.shape[-1]).movedim(0, -2)
        path = path.clone(memory_format=torch.contiguous_format)  # which a user may overwrite, as no view of it can be
        return path, None if memory is None else memory.reshape(*batch, memory.shape[-1])

    def final(self, z: Tensor, last: Tensor | None, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The state to carry on with: z and c at each sequence's end, ``(..., B, H)``.

        Args:
            z: the trajectory z_{1:T}, noisy or clean.
            last: c_T where the scan kept it; the elementwise recursion finds it again where it did not.
            lengths: ``(B,)``, 0 meaning that the state carried in goes on; None for T everywhere.
        """
        memory = None
        if self.cell.has_memory and (last is None or lengths is not None):
            _, memory = self.means(z)
        if lengths is None:
            return z[..., -1, :], last if memory is None else memory[..., -1, :]
        return self._at(self.z, z, lengths), None if memory is None else self._at(self.c, memory, lengths)

    @staticmethod
    def _at(start: Tensor | None, path: Tensor, lengths: Tensor) -> Tensor:
        assert start is not None
        start = start.expand(*path.shape[:-2], path.shape[-1]).unsqueeze(-2)
        index = lengths[..., None, None].expand(*path.shape[:-2], 1, path.shape[-1])
        return torch.cat([start, path], -2).gather(-2, index).squeeze(-2)

    def _projections(self) -> Tensor:
        return linear(self.inputs, self.weights.ih, self.weights.bias_ih)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x ``(..., T, I)`` to ``(..., T, G)`` by weights ``(..., G, I)`` and biases ``(..., G)``, sampled ones too."""
    if weight.dim() == 2 and bias.dim() == 1:
        return F.linear(x, weight, bias)
    return x @ weight.mT + bias.unsqueeze(-2)
