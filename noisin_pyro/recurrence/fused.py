"""The library's fused kernels (cuDNN, oneDNN), with and without additive noise.

With z_t = h_t + δ_t (paper, section 3) the recurrent map is linear in the noise,

    W_hh z_{t-1} = W_hh h_{t-1} + W_hh δ_{t-1},

so the noisy RNN is a deterministic one that also reads its own past noise: inputs [x_t ; δ_{t-1}], input weights
[W_ih ; W_hh]. That is exact for every cell whose state enters through W_hh alone. The GRU's does not: its update gate
multiplies z_{t-1} itself. Gradients are the kernels' own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from noisin_pyro.recurrence.cells import Cell, Weights
from noisin_pyro.recurrence.matmul import is_tracing


def deterministic(cell: Cell, weights: Weights, x: Tensor, h: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The RNN without noise.

    Args:
        cell: a cell that has a ``fused_kernel``.
        weights: the layer's.
        x: inputs, ``(..., B, T, I)``.
        h: the state carried in, h_0, ``(..., B, H)``.
        c: the memory carried in.

    Returns:
        h_{1:T}, ``(..., B, T, H)``, and the last memory.
    """
    assert cell.fused_kernel is not None
    if cell.fused_kernel.sigmoid_as_tanh:
        u, _ = _run(cell, _sigmoid_as_tanh(weights), x, 2 * h - 1, None)
        return (u + 1) / 2, None
    return _run(cell, weights, x, h, c)


def with_additive_noise(
    cell: Cell, weights: Weights, x: Tensor, delta: Tensor, z: Tensor, c: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The means h_{1:T} of the RNN whose states are z_t = h_t + δ_t, and the last memory.

    Args:
        cell: a cell whose ``fused_kernel`` supports additive noise.
        weights: the layer's.
        x: inputs, ``(..., B, T, I)``.
        delta: the injected noise δ_{1:T}, ``(..., B, T, H)``.
        z: the noisy state carried in, z_0, ``(..., B, H)``; its noise is in it already, so the first δ read is 0.
        c: the memory carried in.
    """
    assert cell.fused_kernel is not None
    past = torch.cat([torch.zeros_like(delta[..., :1, :]), delta[..., :-1, :]], -2)
    batch = past.shape[:-2]
    if batch != x.shape[:-2]:
        batch = torch.broadcast_shapes(batch, x.shape[:-2])
    inputs = torch.cat([part.expand(*batch, -1, -1) for part in (x, past)], -1)
    if cell.fused_kernel.sigmoid_as_tanh:
        rescaled = _sigmoid_as_tanh(weights)
        # W_hh/2 here, W_hh/4 in the recurrence: z = (u + 1)/2 is rescaled once more there, and δ is not.
        with_past = rescaled._replace(ih=torch.cat([rescaled.ih, weights.hh / 2], -1))
        u, _ = _run(cell, with_past, inputs, 2 * z - 1, None)
        return (u + 1) / 2, None
    return _run(cell, weights._replace(ih=torch.cat([weights.ih, weights.hh], -1)), inputs, z, c)


def _sigmoid_as_tanh(weights: Weights) -> Weights:
    """The weights of the tanh layer whose state is u = 2h - 1, since σ(a) = (1 + tanh(a/2)) / 2:

    a/2 = W_ih x / 2 + W_hh h / 2 + b/2 = (W_ih/2) x + (W_hh/4) u + (b/2 + W_hh 1 / 4).
    """
    ih, hh, bias_ih, bias_hh = weights
    return Weights(ih / 2, hh / 4, bias_ih / 2, bias_hh / 2 + hh.sum(-1) / 4)


def _run(cell: Cell, weights: Weights, x: Tensor, h: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
    assert cell.fused_kernel is not None
    batch = torch.broadcast_shapes(x.shape[:-2], h.shape[:-1])
    x_BTI = x.expand(*batch, *x.shape[-2:]).reshape(-1, *x.shape[-2:])
    start = [s.expand(*batch, s.shape[-1]).reshape(1, -1, s.shape[-1]) for s in (h, c) if s is not None]
    # The function that nn.RNN and its like call; it takes no keywords.
    kernel = getattr(torch, cell.fused_kernel.name)
    h_BTH, *last = kernel(
        x_BTI,
        start if cell.has_memory else start[0],
        list(weights),
        True,  # has_biases
        1,  # num_layers
        0.0,  # dropout
        torch.is_grad_enabled() or is_tracing(),  # train: keep what backward needs
        False,  # bidirectional
        True,  # batch_first
    )
    memory = last[1].reshape(*batch, h.shape[-1]) if cell.has_memory else None
    return h_BTH.reshape(*batch, *h_BTH.shape[-2:]), memory
