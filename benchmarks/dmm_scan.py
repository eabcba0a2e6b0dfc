"""The two recurrences of the Deep Markov Model's guide, and their gradients, as one autograd operation each.

Autograd's own record of a loop accumulates the gradients of the weights step by step. Here each is one product over
all steps, as in ``noisin_pyro/recurrence/scan.py``, which does not skip padding.

Steps are packed as in :class:`torch.nn.utils.rnn.PackedSequence`, longest sequence first: ``counts[t]`` rows hold step
t of the sequences that have one. Shapes: B sequences padded to T steps, N steps without padding, Z units of z, R units
of the RNN.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus


class Packing:
    """Steps of padded sequences ``(..., B, T, Z)`` as ``(N, ..., Z)``, and back.

    Args:
        real: which steps are not padding, ``(B, T)``.
    """

    def __init__(self, real: Tensor) -> None:
        self.real, lengths = real, real.sum(-1)
        order = lengths.argsort(descending=True)
        step, row = real[order].T.nonzero(as_tuple=True)
        sequence = order[row]
        self.counts: list[int] = real.sum(0).tolist()
        self.index = sequence * real.shape[-1] + step
        self.reverse_index = sequence * real.shape[-1] + lengths[sequence] - 1 - step  # step t from the end

    def pack(self, padded: Tensor) -> Tensor:
        return padded.flatten(-3, -2).index_select(-2, self.index).movedim(-2, 0)

    def unpack(self, steps: Tensor) -> Tensor:
        """The padding is 0."""
        steps = steps.movedim(0, -2)
        padded = steps.new_zeros(*steps.shape[:-2], self.real.numel(), steps.shape[-1])
        return padded.index_copy(-2, self.index, steps).unflatten(-2, self.real.shape)


def relu_rnn(counts: list[int], start: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
    """h_t = relu(a_t + W h_{t-1}), ``(N, R)``, from h_0 ``(R,)``, a ``(N, R)`` and W ``(R, R)``."""
    return _ReluRNN.apply(counts, start, inputs, weight)  # type: ignore[return-value]


class Weights(NamedTuple):
    """Of the guide's combiner: P ``(R, Z)``, p ``(R,)``, M ``(2 Z, R)`` and m ``(2 Z,)``."""

    project: Tensor
    project_bias: Tensor
    output: Tensor
    output_bias: Tensor


def sample(
    counts: list[int], start: Tensor, noise: Tensor, states: Tensor, weights: Weights, floor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """z, its mean μ and its scale, ``(N, Z)``, from z_0 ``(Z,)``, standard normal ε ``(N, Z)`` and states s ``(N, R)``.

    k_t = tanh(P z_{t-1} + p),  c_t = (k_t + s_t) / 2,  (μ_t, r_t) = M c_t + m,  z_t = μ_t + (softplus(r_t) + floor) ε_t
    """
    return _Sample.apply(counts, floor, start, noise, states, *weights)  # type: ignore[return-value]


class _ReluRNN(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, counts: list[int], start: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:  # type: ignore[override]
        h, before, weight_T = torch.empty_like(inputs), start.expand(counts[0], -1), _transposed(weight)
        for a_t, h_t in _split(counts, inputs, h):
            before = torch.addmm(a_t, before[: len(a_t)], weight_T, out=h_t).relu_()
        ctx.counts = counts
        ctx.save_for_backward(start, h, weight)
        return h

    @staticmethod
    def backward(ctx: Any, grad_h: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        start, h, weight = ctx.saved_tensors
        slope, later = (h > 0).to(h.dtype), h.new_zeros(0, len(weight))
        grad_a = grad_h * slope  # along h_t; what comes along h_{t+1} is added, and only the first rows have it
        for grad_a_t, slope_t in _reversed(ctx.counts, grad_a, slope):
            count = len(later)
            grad_a_t[:count].addcmul_(later, slope_t[:count])
            later = grad_a_t @ weight
        return None, later.sum(0), grad_a, grad_a.mT @ _before(ctx.counts, start, h)


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, counts: list[int], floor: float, start: Tensor, noise: Tensor, states: Tensor, *weights: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        w, units = Weights(*weights), noise.shape[-1]
        project_T, output_T = _transposed(w.project), _transposed(w.output)
        k, c = torch.empty_like(states), torch.empty_like(states)
        scale, z, output = torch.empty_like(noise), torch.empty_like(noise), noise.new_empty(len(noise), 2 * units)
        mean, raw = output.split(units, -1)
        tensors = (states, noise, k, c, output, mean, raw, scale, z)
        before = start.expand(counts[0], -1)
        for s_t, noise_t, k_t, c_t, output_t, mean_t, raw_t, scale_t, z_t in _split(counts, *tensors):
            torch.addmm(w.project_bias, before[: len(k_t)], project_T, out=k_t).tanh_()
            torch.lerp(k_t, s_t, 0.5, out=c_t)
            torch.addmm(w.output_bias, c_t, output_T, out=output_t)
            torch.add(softplus(raw_t), floor, out=scale_t)
            before = torch.addcmul(mean_t, scale_t, noise_t, out=z_t)
        ctx.counts = counts
        ctx.save_for_backward(start, z, k, c, raw, noise, w.project, w.output)
        return z, mean.contiguous(), scale

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, grad_mean: Tensor, grad_scale: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        start, z, k, c, raw, noise, project, output = ctx.saved_tensors
        units, slope = noise.shape[-1], raw.sigmoid()  # the slope of softplus
        raw_noise, k_slope = noise * slope, (1 - k * k) / 2
        # Along z_t, μ_t and the scale; what comes along z_{t+1} is added, and only the first rows have it.
        grad_output = torch.cat([grad_mean + grad_z, torch.addcmul(grad_scale * slope, grad_z, raw_noise)], -1)
        grad_c, grad_k, later = torch.empty_like(k), torch.empty_like(k), noise.new_zeros(0, units)
        tensors = (grad_output, *grad_output.split(units, -1), raw_noise, k_slope, grad_c, grad_k)
        for each in _reversed(ctx.counts, *tensors):
            grad_output_t, grad_mean_t, grad_raw_t, raw_noise_t, k_slope_t, grad_c_t, grad_k_t = each
            count = len(later)
            grad_mean_t[:count] += later
            grad_raw_t[:count].addcmul_(later, raw_noise_t[:count])
            torch.mm(grad_output_t, output, out=grad_c_t)
            torch.mul(grad_c_t, k_slope_t, out=grad_k_t)
            later = grad_k_t @ project
        grad_project, grad_m = grad_k.mT @ _before(ctx.counts, start, z), grad_output.mT @ c
        return None, None, later.sum(0), None, grad_c / 2, grad_project, grad_k.sum(0), grad_m, grad_output.sum(0)


def _transposed(weight: Tensor) -> Tensor:
    """A copy: products of few rows with a view would take up to three times as long."""
    return weight.mT.contiguous()


def _split(counts: list[int], *packed: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The rows of each tensor at step 1, then at step 2, …"""
    return zip(*(tensor.split(counts) for tensor in packed), strict=True)


def _reversed(counts: list[int], *packed: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The rows of each tensor at the last step, then at the one before, …"""
    return zip(*(reversed(tensor.split(counts)) for tensor in packed), strict=True)


def _before(counts: list[int], start: Tensor, path: Tensor) -> Tensor:
    """The packed steps before those of ``path``."""
    steps = path.split(counts)
    return torch.cat([start.expand(counts[0], -1), *(z[:count] for z, count in zip(steps, counts[1:], strict=False))])
