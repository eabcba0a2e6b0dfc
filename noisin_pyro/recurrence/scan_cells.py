"""The scan of each cell, step by step: forward, and backward explicitly (``scan.py`` makes them one operation).

The equations of noise and masks, the same for all cells, are in ``scan_base.py``; so is the notation.

The backward passes compute slopes of all steps at once where they can. Only what depends on z̄_t itself is left to the
loop over time: one product and a few elementwise operations a step. W̄_hh is one product over all steps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from noisin_pyro.recurrence.matmul import PackedMatrix
from noisin_pyro.recurrence.scan_base import (
    Gradients,
    Inputs,
    NeedsGrad,
    Saved,
    ScanCell,
    add_noise,
    grad_start,
    grad_state,
    masked,
    shared_gradients,
    unbind,
)


class ElementwiseScan(ScanCell):
    """h_t = f(a_t + p_t), whose slope f' is a function of h_t itself (paper, section 2.1).

    Backward: ā_t = p̄_t = f'(h_t) ⊙ h̄_t.

    Args:
        function: f, with an argument ``out``.
        slope: f' as a function of h: tanh 1 - h²; sigmoid h (1 - h); relu [h > 0]; identity 1.
    """

    def __init__(self, function: Callable[..., Tensor], slope: Callable[[Tensor], Tensor]) -> None:
        self.function, self.slope = function, slope

    def forward(self, precision: str, args: Inputs) -> tuple[Tensor, Tensor, Saved]:
        steps, rows, units = args.a.shape
        z = args.a.new_empty(steps + 1, rows, units)
        # Without noise h_t and z_t share a buffer: nothing is copied.
        h = torch.empty_like(args.a) if args.is_noisy else z[1:]
        z[0] = args.z_0
        weight_hh, z_before = PackedMatrix(args.weight_hh.mT, rows, precision), z[0]
        factors, shifts = unbind(args.factor, steps), unbind(args.shift, steps)
        for a_t, h_t, z_t, factor_t, shift_t in zip(args.a, h, z[1:], factors, shifts, strict=True):
            self.function(weight_hh.matmul(masked(z_before, args.mask), a_t), out=h_t)
            z_before = add_noise(h_t, factor_t, shift_t, out=z_t)
        return z[1:], args.z_0.new_empty(0), (z, h)

    def backward(
        self, precision: str, args: Inputs, needs_grad: NeedsGrad, saved: Saved, grad_z: Tensor, grad_c: Tensor
    ) -> Gradients:
        z, h = saved
        steps, rows, _ = h.shape
        # ∂z_t/∂a_t = f'(h_t) (⊙ r_t) for all steps in one operation; the loop multiplies it by z̄_t, in place, so that
        # the same buffer ends as ā.
        grad_a = self.slope(h)
        if args.factor is not None:
            grad_a *= args.factor
        weight_hh, grad_a_steps = PackedMatrix(args.weight_hh, rows, precision), grad_a.unbind(0)
        # z̄_t: so far along the output at t only. Autograd owns these tensors, so sums replace them in the list.
        grad_z_steps = list(grad_z)
        for t in range(steps - 1, -1, -1):
            if t < steps - 1:
                grad_z_steps[t] = grad_state(weight_hh, grad_a_steps[t + 1], args.mask, grad_z_steps[t])
            grad_a_steps[t].mul_(grad_z_steps[t])
        gradients = shared_gradients(precision, args, needs_grad, z, h, grad_a, grad_z_steps)
        return gradients._replace(z_0=grad_start(precision, args, needs_grad, grad_a[0]))


class LSTMScan(ScanCell):
    """i, f, o = σ(·), g = tanh(·) of the blocks of a_t + p_t;  c_t = f c_{t-1} + i g;  h_t = o tanh(c_t).

    Backward, with the gates' pre-activations marked by a hat and s_t = tanh(c_t):

        ô̄_t = h̄_t s_t o (1 - o)
        c̄_t = c̄_{t+1} f_{t+1} + h̄_t o (1 - s_t²)          (c̄_T starts at the gradient of the returned memory)
        î̄_t = c̄_t g i (1 - i)     f̂̄_t = c̄_t c_{t-1} f (1 - f)     ĝ̄_t = c̄_t i (1 - g²)
        ā_t = p̄_t = [î̄, f̂̄, ĝ̄, ô̄]_t                        c̄_0 = c̄_1 f_1
    """

    def forward(self, precision: str, args: Inputs) -> tuple[Tensor, Tensor, Saved]:
        steps, rows, width = args.a.shape
        units = width // 4
        # Buffers of all steps, written once: backward reads them as whole tensors, without stacking steps.
        gates = torch.empty_like(args.a)
        z, c = (args.a.new_empty(steps + 1, rows, units) for _ in range(2))
        h, tanh_c = (args.a.new_empty(steps, rows, units) for _ in range(2))
        h = h if args.is_noisy else z[1:]
        z[0], c[0] = args.z_0, args.c_0
        weight_hh, z_before = PackedMatrix(args.weight_hh.mT, rows, precision), z[0]
        noise = (unbind(args.factor, steps), unbind(args.shift, steps))
        each = zip(args.a, gates, c[:-1], c[1:], tanh_c, h, z[1:], *noise, strict=True)
        for a_t, gates_t, c_before, c_t, tanh_c_t, h_t, z_t, factor_t, shift_t in each:
            preactivation = weight_hh.matmul(masked(z_before, args.mask), a_t)
            # One sigmoid over all four blocks costs less than one over each; tanh then overwrites the third.
            i, f, g, o = torch.sigmoid(preactivation, out=gates_t).chunk(4, -1)
            torch.tanh(preactivation[:, 2 * units : 3 * units], out=g)
            torch.mul(f, c_before, out=c_t).addcmul_(i, g)
            torch.mul(o, torch.tanh(c_t, out=tanh_c_t), out=h_t)
            z_before = add_noise(h_t, factor_t, shift_t, out=z_t)
        # c is saved for backward, so the returned memory is a copy: the caller may overwrite it.
        return z[1:], c[-1].clone(), (z, c, gates, tanh_c, h)

    def backward(
        self, precision: str, args: Inputs, needs_grad: NeedsGrad, saved: Saved, grad_z: Tensor, grad_c: Tensor
    ) -> Gradients:
        z, c, gates, tanh_c, h = saved
        steps, rows, units = h.shape
        _, f, _, _ = gates.chunk(4, -1)
        grad_a, c_slope = self._slopes(gates, c, tanh_c)
        grad_o = grad_a.chunk(4, -1)[3]
        if args.factor is not None:  # h̄_t = z̄_t ⊙ r_t
            grad_o *= args.factor
            c_slope *= args.factor
        weight_hh, grad_z_steps = PackedMatrix(args.weight_hh, rows, precision), list(grad_z)
        # The three gates of c_t stand side by side, so one multiplication by c̄_t serves them.
        grad_ifg_steps = grad_a.view(steps, rows, 4, units)[:, :, :3].unbind(0)
        grad_a_steps, grad_o_steps, f_steps, c_slopes = (x.unbind(0) for x in (grad_a, grad_o, f, c_slope))
        for t in range(steps - 1, -1, -1):
            if t < steps - 1:
                grad_z_steps[t] = grad_state(weight_hh, grad_a_steps[t + 1], args.mask, grad_z_steps[t])
                grad_c = grad_c * f_steps[t + 1]  # not in place: the first is autograd's
            grad_c = torch.addcmul(grad_c, grad_z_steps[t], c_slopes[t])
            grad_ifg_steps[t].mul_(grad_c.unsqueeze(1))
            grad_o_steps[t].mul_(grad_z_steps[t])
        gradients = shared_gradients(precision, args, needs_grad, z, h, grad_a, grad_z_steps)
        grad_z_0 = grad_start(precision, args, needs_grad, grad_a[0])
        return gradients._replace(z_0=grad_z_0, c_0=grad_c * f[0])

    @staticmethod
    def _slopes(gates: Tensor, c: Tensor, tanh_c: Tensor) -> tuple[Tensor, Tensor]:
        """∂c_t/∂î, ∂c_t/∂f̂, ∂c_t/∂ĝ and ∂h_t/∂ô, in one buffer ``(T, R, 4 H)``; and ∂h_t/∂c_t. For all steps."""
        i, f, g, o = gates.chunk(4, -1)
        slopes = torch.empty_like(gates)
        slope_i, slope_f, slope_g, slope_o = slopes.chunk(4, -1)
        # torch's own gradients, which take the function's value: grad · y (1 - y) and grad · (1 - y²)
        sigmoid, tanh = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward
        sigmoid.grad_input(g, i, grad_input=slope_i)  # g i (1 - i)
        sigmoid.grad_input(c[:-1], f, grad_input=slope_f)  # c_{t-1} f (1 - f)
        tanh.grad_input(i, g, grad_input=slope_g)  # i (1 - g²)
        sigmoid.grad_input(tanh_c, o, grad_input=slope_o)  # s_t o (1 - o)
        return slopes, tanh(o, tanh_c)  # o (1 - s_t²)


class GRUScan(ScanCell):
    """With p_t = W_hh (m ⊙ z_{t-1}) + b_hh: the reset gate r = σ(a_r + p_r), the update gate u = σ(a_u + p_u), the
    candidate n = tanh(a_n + r p_n), and h_t = (1 - u) n + u z_{t-1}.

    Backward, with the pre-activations marked by a hat:

        n̂̄_t = h̄_t (1 - u) (1 - n²)      û̄_t = h̄_t (z_{t-1} - n) u (1 - u)      r̂̄_t = n̂̄_t p_n r (1 - r)
        ā_t = [r̂̄, û̄, n̂̄]_t               p̄_t = [r̂̄, û̄, n̂̄ r]_t                    b̄_hh = Σ_t p̄_t
        z̄_{t-1} = … + m ⊙ (W_hhᵀ p̄_t) + h̄_t u                     (z_{t-1} also enters unmasked, carried over by u)

    b_hh is separate because r multiplies its third block.
    """

    separate_bias_hh = True

    def forward(self, precision: str, args: Inputs) -> tuple[Tensor, Tensor, Saved]:
        steps, rows, width = args.a.shape
        units = width // 3
        p = torch.empty_like(args.a)
        z, h = args.a.new_empty(steps + 1, rows, units), args.a.new_empty(steps, rows, units)
        gates, candidate = args.a.new_empty(steps, rows, 2 * units), torch.empty_like(h)
        h = h if args.is_noisy else z[1:]
        z[0] = args.z_0
        weight_hh, z_before = PackedMatrix(args.weight_hh.mT, rows, precision), z[0]
        bias = args.bias_hh.expand(rows, -1).contiguous()  # which oneDNN's fused sum needs
        noise = (unbind(args.factor, steps), unbind(args.shift, steps))
        each = zip(args.a, p, gates, candidate, h, z[1:], *noise, strict=True)
        for a_t, p_t, gates_t, candidate_t, h_t, z_t, factor_t, shift_t in each:
            # p is kept for backward, which needs p_n (r̂̄); oneDNN returns a tensor of its own.
            p_t.copy_(weight_hh.matmul(masked(z_before, args.mask), bias))
            torch.add(a_t[:, : 2 * units], p_t[:, : 2 * units], out=gates_t).sigmoid_()
            reset, update = gates_t.chunk(2, -1)
            torch.addcmul(a_t[:, 2 * units :], reset, p_t[:, 2 * units :], out=candidate_t).tanh_()
            # h_t = n + u (z_{t-1} - n), in one operation
            torch.lerp(candidate_t, z_before, update, out=h_t)
            z_before = add_noise(h_t, factor_t, shift_t, out=z_t)
        return z[1:], args.z_0.new_empty(0), (z, p, gates, candidate, h)

    def backward(
        self, precision: str, args: Inputs, needs_grad: NeedsGrad, saved: Saved, grad_z: Tensor, grad_c: Tensor
    ) -> Gradients:
        z, p, gates, candidate, h = saved
        steps, rows, units = h.shape
        reset, update = gates.chunk(2, -1)
        scale = torch.ones_like(h) if args.factor is None else args.factor  # ∂z_t/∂h_t
        # Slopes of z_t by each pre-activation, for all steps; the loop multiplies them by z̄_t.
        slope_candidate = (1 - update) * (1 - candidate.square()) * scale
        slope_update = (z[:-1] - candidate) * update * (1 - update) * scale
        slope_reset = slope_candidate * p[..., 2 * units :] * reset * (1 - reset)
        grad_a = torch.cat([slope_reset, slope_update, slope_candidate], -1)
        grad_p = torch.cat([slope_reset, slope_update, slope_candidate * reset], -1)
        carry_slope = update * scale  # ∂z_t/∂z_{t-1} past W_hh
        weight_hh, grad_z_steps = PackedMatrix(args.weight_hh, rows, precision), list(grad_z)
        grad_a_steps, grad_p_steps = (list(grad.view(steps, rows, 3, units)) for grad in (grad_a, grad_p))
        grad_before = None  # z̄_t along step t + 1
        for t in range(steps - 1, -1, -1):
            if grad_before is not None:
                grad_z_steps[t] = grad_z_steps[t] + grad_before
            grad_a_steps[t].mul_(grad_z_steps[t].unsqueeze(1))
            grad_p_steps[t].mul_(grad_z_steps[t].unsqueeze(1))
            grad_before = grad_state(weight_hh, grad_p[t], args.mask, grad_z_steps[t] * carry_slope[t])
        gradients = shared_gradients(precision, args, needs_grad, z, h, grad_p, grad_z_steps)
        return gradients._replace(a=grad_a, bias_hh=grad_p.sum((0, 1)), z_0=grad_before)


def _identity(x: Tensor, out: Tensor) -> Tensor:
    return out.copy_(x)


def _relu(x: Tensor, out: Tensor) -> Tensor:
    return torch.clamp_min(x, 0.0, out=out)  # torch.relu has no argument ``out``


TANH = ElementwiseScan(torch.tanh, lambda h: 1 - h.square())
SIGMOID = ElementwiseScan(torch.sigmoid, lambda h: h * (1 - h))
RELU = ElementwiseScan(_relu, lambda h: (h > 0).to(h.dtype))
IDENTITY = ElementwiseScan(_identity, torch.ones_like)
