"""Every backend gives the same trajectory and gradients."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from noisin_pyro.noise import get
from noisin_pyro.recurrence.cells import CELLS, Weights
from noisin_pyro.recurrence.dispatch import BACKENDS
from noisin_pyro.recurrence.transition import FixedMeans, Recurrence

from .. import textbook
from ..small_layers import (
    ADDITIVE,
    BATCH,
    FEATURES,
    LENGTHS,
    MULTIPLICATIVE,
    PARTICLES,
    STEPS,
    UNITS,
    close,
    make_inputs,
    make_rnn,
    make_state,
    parts,
)


def make_recurrence(name: str, noise: str = "gaussian", *batch: int, masked: bool = False) -> Recurrence:
    """The recurrence of one layer. Every tensor is a leaf that requires a gradient; masks have no zeros."""
    rnn = make_rnn(name, noise, spread=0.0)
    z, *c = (part[0].requires_grad_() for part in parts(make_state(rnn, *batch)))
    inputs = make_inputs(batch[-1] if batch else BATCH).requires_grad_()
    mask = (torch.rand_like(z) + 0.5).requires_grad_() if masked else None
    return Recurrence(rnn.cell, Weights(*textbook.weights(rnn, 1)), inputs, z, c[0] if c else None, mask=mask)


def leaves(recurrence: Recurrence) -> list[Tensor]:
    others = [part for part in (recurrence.c, recurrence.mask) if part is not None]
    return [*recurrence.weights, recurrence.inputs, recurrence.z, *others]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("noise", ["gaussian", "gamma", "bernoulli", "gaussian:multiplicative"])
@pytest.mark.parametrize("name", CELLS)
def test_values_and_gradients_of_every_backend_agree_with_the_textbook_loop(
    name: str, noise: str, backend: str, masked: bool
) -> None:
    recurrence, family = replace(make_recurrence(name, noise, masked=masked), backend=backend), get(noise)
    if backend == "fused" and (name in ("gru", "identity") or ":" in noise or masked):
        return  # there is none: test_dispatch.py
    spread = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    law = family.law(spread.detach().squeeze(-1), UNITS)
    epsilon = law.expand(torch.Size([PARTICLES, BATCH, STEPS])).sample().requires_grad_()
    weight = torch.randn(PARTICLES, BATCH, STEPS, UNITS, dtype=torch.float64)

    def step(t: int, mean: Tensor) -> Tensor:
        return mean + textbook.scale(noise, mean, spread.squeeze(-1)) * epsilon[..., t, :]

    expected = [*leaves(recurrence), spread, epsilon]
    results = []
    for z, memory in (recurrence.transport(family, spread, epsilon), recurrence.loop(step)):
        value = (weight * z.sin()).sum() + (0.0 if memory is None else memory.square().sum())
        results.append((z, torch.autograd.grad(value, expected)))
    (z, gradients), (looped, expected) = results
    close(z, looped)
    for gradient, other in zip(gradients, expected, strict=True):
        close(gradient, other)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("noise", ["gaussian", "gaussian:multiplicative"])
@pytest.mark.parametrize("name", CELLS)
def test_first_and_second_gradients_by_finite_differences(name: str, noise: str, masked: bool) -> None:
    recurrence, family = make_recurrence(name, noise, 2, masked=masked), get(noise)
    steps = 3
    inputs = recurrence.inputs[..., :steps, :].detach().requires_grad_()
    recurrence = replace(recurrence, inputs=inputs, backend="scan")
    epsilon = torch.randn(2, steps, UNITS, dtype=torch.float64, requires_grad=True)
    spread = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)

    def trajectory(spread: Tensor, epsilon: Tensor, *rest: Tensor) -> Tensor:
        weights, (x, z, *others) = Weights(*rest[:4]), rest[4:]
        mask = others.pop() if masked else None
        copy = replace(recurrence, weights=weights, inputs=x, z=z, c=others[0] if others else None, mask=mask)
        return copy.transport(family, spread, epsilon)[0]

    given = (spread, epsilon, *leaves(recurrence))
    assert torch.autograd.gradcheck(trajectory, given)
    if name != "relu":  # which bends
        assert torch.autograd.gradgradcheck(trajectory, given)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("backend", ["scan", "fused"])
@pytest.mark.parametrize("name", CELLS)
def test_every_backend_without_noise_equals_the_plain_rnn(name: str, backend: str, masked: bool) -> None:
    if backend == "fused" and (name == "identity" or masked):
        return
    recurrence = make_recurrence(name, masked=masked)
    weight = torch.randn(BATCH, STEPS, UNITS, dtype=torch.float64)
    results = []
    for each in (backend, "loop"):
        z, memory = replace(recurrence, backend=each).clean()
        value = (weight * z.sin()).sum() + (0.0 if memory is None else memory.square().sum())
        results.append((z, *torch.autograd.grad(value, leaves(recurrence))))
    for result, expected in zip(*results, strict=True):
        close(result, expected)


@pytest.mark.parametrize("noise", ADDITIVE + MULTIPLICATIVE)
@pytest.mark.parametrize("name", CELLS)
def test_sampled_weights_give_the_result_of_each_sample(name: str, noise: str) -> None:
    single = [make_recurrence(name, noise) for _ in range(PARTICLES)]
    first, family = single[0], get(noise)
    sampled = Weights(*(torch.stack(w).unsqueeze(1) for w in zip(*(r.weights for r in single), strict=True)))
    together = Recurrence(first.cell, sampled, first.inputs, first.z, first.c)
    assert together.batch_shape == (PARTICLES, BATCH)
    spread = torch.tensor([[0.3]], dtype=torch.float64)
    epsilon = family.law(spread[0], UNITS).expand(torch.Size([PARTICLES, BATCH, STEPS])).sample()
    z, memory = together.transport(family, spread, epsilon)
    clean, _ = together.clean()
    means, _ = together.means(z)
    for s, recurrence in enumerate(single):
        alone = Recurrence(first.cell, recurrence.weights, first.inputs, first.z, first.c)
        expected, expected_memory = alone.transport(family, spread, epsilon[s])
        close(z[s], expected)
        close(clean[s], alone.clean()[0])
        close(means[s], alone.means(expected)[0])
        if expected_memory is not None:
            assert memory is not None
            close(memory[s], expected_memory)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("name", CELLS)
def test_final_state_is_at_the_end_of_each_sequence(name: str, lengths: Tensor | None) -> None:
    recurrence = make_recurrence(name)
    z, last = recurrence.loop(lambda _, mean: mean + torch.randn(PARTICLES, 1, 1, dtype=mean.dtype))
    _, memories = recurrence.means(z)
    ends = [STEPS] * BATCH if lengths is None else lengths.tolist()
    for kept in (last, None):  # stored by the scan, or to be computed again
        final, memory = recurrence.final(z, kept, lengths)
        close(final, textbook.at_lengths(z, recurrence.z, ends), 0.0)
        assert (memory is None) == (memories is None)
        if memory is not None and memories is not None and recurrence.c is not None:
            close(memory, textbook.at_lengths(memories, recurrence.c, ends))


def test_given_means_do_not_depend_on_the_noise() -> None:
    mean, family = make_inputs(), get("gaussian")
    transition = FixedMeans(mean)
    assert (transition.batch_shape, transition.event_shape) == ((BATCH,), (STEPS, FEATURES))
    epsilon = torch.randn(PARTICLES, BATCH, STEPS, FEATURES, dtype=torch.float64)
    spread = torch.tensor([[0.3]], dtype=torch.float64)
    z, memory = transition.expand((PARTICLES, BATCH)).transport(family, spread, epsilon)
    close(z, mean + 0.3 * epsilon)
    assert memory is None
    close(transition.loop(lambda t, m: m + 0.3 * epsilon[..., t, :])[0], z)
    for alone, _ in (transition.means(z), transition.clean()):
        close(alone, mean, 0.0)
