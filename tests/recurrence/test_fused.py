"""The fused kernels against the equations, with and without additive noise."""

import pytest
import torch
from torch import Tensor

from noisin_pyro.recurrence.cells import CELLS, Weights
from noisin_pyro.recurrence.fused import deterministic, with_additive_noise

from .. import textbook
from ..small_layers import BATCH, PARTICLES, STEPS, UNITS, close, make_inputs, make_rnn, make_state, parts

WITH_KERNEL = [name for name, cell in CELLS.items() if cell.fused_kernel is not None]
REDUCIBLE = [name for name, cell in CELLS.items() if cell.fused_kernel and cell.fused_kernel.additive_noise]


def test_cells_with_a_fused_additive_kernel() -> None:
    assert set(REDUCIBLE) == {"tanh", "sigmoid", "relu", "lstm"}


@pytest.mark.parametrize("batch", [(BATCH,), (PARTICLES, BATCH)])
@pytest.mark.parametrize("name", WITH_KERNEL)
def test_rnn_without_noise(name: str, batch: tuple[int, ...]) -> None:
    rnn, inputs = make_rnn(name, spread=0.0), make_inputs()
    state = make_state(rnn, *batch)
    (layer,) = textbook.run(rnn, inputs, textbook.clean, state)
    start, memory = textbook.start(rnn, 1, inputs, state)
    h, last = deterministic(rnn.cell, Weights(*textbook.weights(rnn, 1)), inputs, start, memory)
    close(h, layer.z)
    assert (last is None) == (layer.memory is None)
    if last is not None and layer.memory is not None:
        close(last, layer.memory[..., -1, :])


@pytest.mark.parametrize("name", REDUCIBLE)
def test_means_under_given_noise(name: str) -> None:
    rnn, inputs = make_rnn(name, spread=0.0), make_inputs()
    state = make_state(rnn)
    delta = torch.randn(PARTICLES, BATCH, STEPS, UNITS, dtype=torch.float64)
    (layer,) = textbook.run(rnn, inputs, lambda _, t, mean: mean + delta[..., t, :], state)
    start, memory = textbook.start(rnn, 1, inputs, state)
    h, last = with_additive_noise(rnn.cell, Weights(*textbook.weights(rnn, 1)), inputs, delta, start, memory)
    close(h, layer.mean)
    if layer.memory is not None:
        assert last is not None
        close(last, layer.memory[..., -1, :])


@pytest.mark.parametrize("name", REDUCIBLE)
def test_gradients_by_finite_differences(name: str) -> None:
    rnn, inputs = make_rnn(name, spread=0.0), make_inputs(2, 3)
    start = [part[0].requires_grad_() for part in parts(make_state(rnn, 2))]
    delta = torch.randn(2, 3, UNITS, dtype=torch.float64, requires_grad=True)

    def means(x: Tensor, delta: Tensor, *rest: Tensor) -> Tensor:
        weights, (z, *c) = Weights(*rest[:4]), rest[4:]
        return with_additive_noise(rnn.cell, weights, x, delta, z, c[0] if c else None)[0]

    assert torch.autograd.gradcheck(means, (inputs.requires_grad_(), delta, *textbook.weights(rnn, 1), *start))
