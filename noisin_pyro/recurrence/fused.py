"""The library's fused kernels (cuDNN, oneDNN), with and without additive noise.

With z_t = h_t + δ_t the recurrent map is linear in the noise, W_hh z_{t-1} = W_hh h_{t-1} + W_hh δ_{t-1}, so the noisy
RNN is a deterministic one that also reads its own past noise: inputs [x_t ; δ_{t-1}], input weights [W_ih ; W_hh].
That is exact for every cell whose state enters through W_hh alone (not the GRU, whose gates multiply z_{t-1}).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from noisin_pyro.models.cells import Cell


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
        """Whether one set of weights serves the whole batch, as the kernels need."""
        return self.ih.dim() == 2 and self.hh.dim() == 2 and self.bias_ih.dim() == 1 and self.bias_hh.dim() == 1


def deterministic(cell: Cell, weights: Weights, x: Tensor, h: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The clean RNN: h_{1:T} ``(..., B, T, H)`` and the last memory; x ``(..., B, T, I)``, h_0 ``(..., B, H)``."""
    if cell.name == "sigmoid":
        u, _ = _run(cell, *_sigmoid_as_tanh(weights), x, 2 * h - 1, None)
        return (u + 1) / 2, None
    return _run(cell, *weights, x, h, c)


def with_additive_noise(
    cell: Cell, weights: Weights, x: Tensor, delta: Tensor, z: Tensor, c: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The means h_{1:T} of the RNN whose states are z_t = h_t + δ_t, and the last memory.

    Args:
        x: inputs, ``(..., B, T, I)``.
        delta: the injected noise δ_{1:T}, ``(..., B, T, H)``.
        z: the noisy state carried in, z_0, ``(..., B, H)``.
        c: the memory carried in.
    """
    past = torch.cat([torch.zeros_like(delta[..., :1, :]), delta[..., :-1, :]], -2)
    inputs = torch.cat([x.expand(*delta.shape[:-1], x.shape[-1]), past], -1)
    if cell.name == "sigmoid":
        ih, hh, bias_ih, bias_hh = _sigmoid_as_tanh(weights)
        u, _ = _run(cell, torch.cat([ih, weights.hh / 2], -1), hh, bias_ih, bias_hh, inputs, 2 * z - 1, None)
        return (u + 1) / 2, None
    ih, hh, bias_ih, bias_hh = weights
    return _run(cell, torch.cat([ih, hh], -1), hh, bias_ih, bias_hh, inputs, z, c)


def _sigmoid_as_tanh(weights: Weights) -> Weights:
    """σ(a) = (1 + tanh(a/2)) / 2: the weights of the tanh layer whose state is u = 2h - 1."""
    ih, hh, bias_ih, bias_hh = weights
    return Weights(ih / 2, hh / 4, bias_ih / 2, bias_hh / 2 + hh.sum(-1) / 4)


def _run(
    cell: Cell, ih: Tensor, hh: Tensor, bias_ih: Tensor, bias_hh: Tensor, x: Tensor, h: Tensor, c: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    batch = torch.broadcast_shapes(x.shape[:-2], h.shape[:-1])
    x_BTI = x.expand(*batch, *x.shape[-2:]).reshape(-1, *x.shape[-2:])
    start = [s.expand(*batch, s.shape[-1]).reshape(1, -1, s.shape[-1]) for s in (h, c) if s is not None]
    kernel = getattr(torch._VF, str(cell.kernel))  # type: ignore[attr-defined]
    # arguments: biases, one layer, no dropout, whether to keep what backward needs, one direction, batch first
    h_BTH, *last = kernel(
        x_BTI,
        start if cell.has_memory else start[0],
        [ih, hh, bias_ih, bias_hh],
        True,
        1,
        0.0,
        torch.is_grad_enabled(),
        False,
        True,
    )
    memory = last[1].reshape(*batch, -1) if cell.has_memory else None
    return h_BTH.reshape(*batch, *h_BTH.shape[-2:]), memory
