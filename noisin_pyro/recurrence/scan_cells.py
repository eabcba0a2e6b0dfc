"""What the recurrence by hand does along the steps of each cell, forward and backward (``by_hand.py`` calls it).

Every cell has ``forward(products, a, hh, bias, z_0, c_0, mask, factor, shift)``, to the path, the last memory and what
backward needs, and ``backward(products, given, wanted, kept, by_z, by_memory)``, to a gradient, or None, for each
argument of forward from ``a`` on. ``by_x`` is the loss's gradient by x. Shapes are those of ``by_hand.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from noisin_pyro.models.products import Factor, product, summed_product


def _noisy(h: Tensor, factor: Tensor | None, shift: Tensor | None, out: Tensor) -> Tensor:
    if factor is not None:
        return torch.mul(h, factor, out=out)
    return h if shift is None else torch.add(h, shift, out=out)


def _each(path: Tensor | None, steps: int) -> list[Any]:
    return [None] * steps if path is None else list(path.unbind(0))


def masked(z: Tensor, mask: Tensor | None) -> Tensor:
    return z if mask is None else z * mask


def _back(weights: Factor, by_r: Tensor, mask: Tensor | None, plus: Tensor) -> Tensor:
    """What comes back along r = W_hh (m ⊙ z) to z, and ``plus``."""
    if mask is None:
        return weights.times(by_r, plus)
    return torch.addcmul(plus, weights.times(by_r), mask)


def _by_projections(
    by_r: Tensor, hh: Tensor, before: Tensor, mask: Tensor | None, wanted: tuple[bool, ...], products: str
) -> tuple[Tensor, Tensor | None]:
    """The gradients by W_hh and m of the projections r = W_hh (m ⊙ z), all steps at once."""
    flat = by_r.flatten(0, 1)
    by_mask = (product(flat, hh, None, products).view_as(before) * before).sum(0) if wanted[5] else None
    return summed_product(flat, masked(before, mask).flatten(0, 1), products), by_mask


class Elementwise:
    """h_t = f(a_t + W_hh z_{t-1}), whose slope is a function of h_t itself."""

    def __init__(self, function: Callable[..., Tensor], slope: Callable[[Tensor], Tensor]) -> None:
        self.function, self.slope = function, slope

    def forward(self, products, a, hh, bias, z_0, c_0, mask, factor, shift):
        steps, rows, units = a.shape
        is_noisy = factor is not None or shift is not None
        z = a.new_empty(steps + 1, rows, units)
        h = torch.empty_like(a) if is_noisy else z[1:]
        z[0] = z_0
        weights, before = Factor(hh.mT, rows, products), z[0]
        for a_t, h_t, z_t, r, d in zip(a, h, z[1:], _each(factor, steps), _each(shift, steps), strict=True):
            before = _noisy(self.function(weights.times(masked(before, mask), a_t), out=h_t), r, d, out=z_t)
        return z[1:], z_0.new_empty(0), (z, h)

    def backward(self, products, given, wanted, kept, by_z, by_memory):
        _, hh, _, _, _, mask, factor, _ = given
        z, h = kept
        steps, rows, _ = h.shape
        by_a = self.slope(h)
        if factor is not None:
            by_a *= factor
        weights, steps_a = Factor(hh, rows, products), by_a.unbind(0)
        whole = list(by_z)  # by z_t, along all later steps too
        for t in range(steps - 1, -1, -1):
            if t < steps - 1:
                whole[t] = _back(weights, steps_a[t + 1], mask, whole[t])
            steps_a[t].mul_(whole[t])
        by_factor = torch.stack(whole) * h if wanted[6] else None
        by_shift = torch.stack(whole) if wanted[7] else None
        by_start = masked(product(by_a[0], hh, None, products), mask) if wanted[3] else None
        by_hh, by_mask = _by_projections(by_a, hh, z[:-1], mask, wanted, products)
        return by_a, by_hh, None, by_start, None, by_mask, by_factor, by_shift


class LSTM:
    """i, f, g, o = a_t + W_hh z_{t-1}; c_t = σ(f) c_{t-1} + σ(i) tanh(g); h_t = σ(o) tanh(c_t)."""

    def forward(self, products, a, hh, bias, z_0, c_0, mask, factor, shift):
        steps, rows, width = a.shape
        units = width // 4
        is_noisy = factor is not None or shift is not None
        gates = torch.empty_like(a)
        z, c = (a.new_empty(steps + 1, rows, units) for _ in range(2))
        h, squashed = (a.new_empty(steps, rows, units) for _ in range(2))
        h = h if is_noisy else z[1:]
        z[0], c[0] = z_0, c_0
        weights, before = Factor(hh.mT, rows, products), z[0]
        each = zip(a, gates, c[:-1], c[1:], squashed, h, z[1:], _each(factor, steps), _each(shift, steps), strict=True)
        for a_t, gates_t, c_before, c_t, squashed_t, h_t, z_t, r, d in each:
            r_t = weights.times(masked(before, mask), a_t)
            i, f, g, o = torch.sigmoid(r_t, out=gates_t).chunk(4, -1)
            torch.tanh(r_t[:, 2 * units : 3 * units], out=g)
            torch.mul(f, c_before, out=c_t).addcmul_(i, g)
            torch.mul(o, torch.tanh(c_t, out=squashed_t), out=h_t)
            before = _noisy(h_t, r, d, out=z_t)
        return z[1:], c[-1].clone(), (z, c, gates, squashed, h)

    def backward(self, products, given, wanted, kept, by_z, by_memory):
        _, hh, _, _, _, mask, factor, _ = given
        z, c, gates, squashed, h = kept
        steps, rows, units = h.shape
        i, f, g, o = gates.chunk(4, -1)
        by_a = torch.empty_like(gates)  # slopes first: of c_t by the first three gates, of h_t by the last
        by_i, by_f, by_g, by_o = by_a.chunk(4, -1)
        by_sigmoid, by_tanh = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward
        by_sigmoid.grad_input(g, i, grad_input=by_i)
        by_sigmoid.grad_input(c[:-1], f, grad_input=by_f)
        by_tanh.grad_input(i, g, grad_input=by_g)
        by_sigmoid.grad_input(squashed, o, grad_input=by_o)
        by_c_of_h = by_tanh(o, squashed)
        if factor is not None:
            by_o *= factor
            by_c_of_h *= factor
        weights, whole, by_c = Factor(hh, rows, products), list(by_z), by_memory
        by_memories, by_outputs = by_a.view(steps, rows, 4, units)[:, :, :3].unbind(0), by_o.unbind(0)
        steps_a, keeps, slopes = by_a.unbind(0), f.unbind(0), by_c_of_h.unbind(0)
        for t in range(steps - 1, -1, -1):
            if t < steps - 1:
                whole[t] = _back(weights, steps_a[t + 1], mask, whole[t])
                by_c = by_c * keeps[t + 1]
            by_c = torch.addcmul(by_c, whole[t], slopes[t])
            by_memories[t].mul_(by_c.unsqueeze(1))
            by_outputs[t].mul_(whole[t])
        by_factor = torch.stack(whole) * h if wanted[6] else None
        by_shift = torch.stack(whole) if wanted[7] else None
        by_start = masked(product(by_a[0], hh, None, products), mask) if wanted[3] else None
        by_hh, by_mask = _by_projections(by_a, hh, z[:-1], mask, wanted, products)
        return by_a, by_hh, None, by_start, by_c * f[0], by_mask, by_factor, by_shift


class GRU:
    """r = W_hh z_{t-1} + b; n = tanh(a_n + σ(a_r + r_r) r_n); u = σ(a_u + r_u); h_t = (1 - u) n + u z_{t-1}."""

    def forward(self, products, a, hh, bias, z_0, c_0, mask, factor, shift):
        steps, rows, width = a.shape
        units = width // 3
        is_noisy = factor is not None or shift is not None
        r = torch.empty_like(a)
        z, h = a.new_empty(steps + 1, rows, units), a.new_empty(steps, rows, units)
        gates, new = a.new_empty(steps, rows, 2 * units), torch.empty_like(h)
        h = h if is_noisy else z[1:]
        z[0] = z_0
        weights, before, plus = Factor(hh.mT, rows, products), z[0], bias.expand(rows, -1).contiguous()
        each = zip(a, r, gates, new, h, z[1:], _each(factor, steps), _each(shift, steps), strict=True)
        for a_t, r_t, gates_t, new_t, h_t, z_t, factor_t, d in each:
            r_t.copy_(weights.times(masked(before, mask), plus))
            torch.add(a_t[:, : 2 * units], r_t[:, : 2 * units], out=gates_t).sigmoid_()
            reset, update = gates_t.chunk(2, -1)
            torch.addcmul(a_t[:, 2 * units :], reset, r_t[:, 2 * units :], out=new_t).tanh_()
            torch.lerp(new_t, before, update, out=h_t)
            before = _noisy(h_t, factor_t, d, out=z_t)
        return z[1:], z_0.new_empty(0), (z, r, gates, new, h)

    def backward(self, products, given, wanted, kept, by_z, by_memory):
        _, hh, _, _, _, mask, factor, _ = given
        z, r, gates, new, h = kept
        steps, rows, units = h.shape
        reset, update = gates.chunk(2, -1)
        r_new = r[..., 2 * units :]
        scale = torch.ones_like(h) if factor is None else factor
        by_new = (1 - update) * (1 - new.square()) * scale  # slopes of z_t
        by_update = (z[:-1] - new) * update * (1 - update) * scale
        by_reset = by_new * r_new * reset * (1 - reset)
        by_a = torch.cat([by_reset, by_update, by_new], -1)
        by_r = torch.cat([by_reset, by_update, by_new * reset], -1)
        through = update * scale
        weights, whole = Factor(hh, rows, products), list(by_z)
        a_parts, r_parts = (list(by.view(steps, rows, 3, units)) for by in (by_a, by_r))
        before = None
        for t in range(steps - 1, -1, -1):
            if before is not None:
                whole[t] = whole[t] + before
            a_parts[t].mul_(whole[t].unsqueeze(1))
            r_parts[t].mul_(whole[t].unsqueeze(1))
            before = _back(weights, by_r[t], mask, whole[t] * through[t])
        by_factor = torch.stack(whole) * h if wanted[6] else None
        by_shift = torch.stack(whole) if wanted[7] else None
        by_hh, by_mask = _by_projections(by_r, hh, z[:-1], mask, wanted, products)
        return by_a, by_hh, by_r.sum((0, 1)), before, None, by_mask, by_factor, by_shift


def _copy(x: Tensor, out: Tensor) -> Tensor:
    return out.copy_(x)


def _relu(x: Tensor, out: Tensor) -> Tensor:
    return torch.clamp_min(x, 0.0, out=out)


STEPS: dict[str, Any] = {
    "tanh": Elementwise(torch.tanh, lambda h: 1 - h.square()),
    "sigmoid": Elementwise(torch.sigmoid, lambda h: h * (1 - h)),
    "relu": Elementwise(_relu, lambda h: (h > 0).to(h.dtype)),
    "identity": Elementwise(_copy, torch.ones_like),
    "lstm": LSTM(),
    "gru": GRU(),
}
"""The cells that are written out here."""
