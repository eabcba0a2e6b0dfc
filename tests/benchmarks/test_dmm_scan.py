"""The recurrences of the Deep Markov Model's guide against a loop that autograd records, and against torch's RNN."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from noisin_pyro.models import real_steps

LENGTHS = torch.tensor([3, 7, 1, 7, 5])


@pytest.fixture
def packing(dmm: Any) -> Any:
    return dmm.Packing(real_steps(LENGTHS, 8))


def gradients(outputs: Any, leaves: list[Tensor]) -> list[Tensor]:
    torch.manual_seed(3)
    return list(torch.autograd.grad(sum((torch.randn_like(each) * each).sum() for each in outputs), leaves))


@pytest.mark.parametrize("leading", [(), (2,), (2, 3)])
def test_packing_keeps_real_steps_and_their_order(packing: Any, leading: tuple[int, ...]) -> None:
    padded = torch.randn(*leading, 5, 8, 4)
    packed = packing.pack(padded)
    first = padded.flatten(0, -4)[0] if leading else padded
    expected = pack_padded_sequence(first, LENGTHS, batch_first=True, enforce_sorted=False)
    assert packing.counts[:7] == expected.batch_sizes.tolist() and packing.counts[7] == 0
    assert torch.equal(packed.reshape(23, -1, 4)[:, 0], expected.data)
    assert torch.equal(packing.unpack(packed), torch.where(packing.real[..., None], padded, 0.0))


def test_the_scan_has_the_samples_and_gradients_of_the_loop(dmm: Any, packing: Any) -> None:
    combiner = dmm.Combiner(3, 6).double()
    noise, states, start = torch.randn(23, 3).double(), torch.randn(23, 6).double(), torch.randn(3).double()
    leaves = [start.requires_grad_(), states.requires_grad_(), *combiner.parameters()]
    loop = list(dmm.GaussianPath(combiner, start, packing, states)._loop(packing.counts, start, noise, states))
    scan = combiner.scan(packing.counts, start, noise, states)
    torch.testing.assert_close(list(scan), loop, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(scan, leaves), gradients(loop, leaves), rtol=1e-12, atol=1e-12)


def test_the_rnn_has_the_states_and_gradients_of_torch(dmm: Any, packing: Any) -> None:
    rnn = torch.nn.RNN(2, 6, nonlinearity="relu", batch_first=True).double()
    x, start = torch.randn(5, 8, 2).double(), torch.rand(6).double().requires_grad_()
    packed = pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    expected, _ = rnn(packed, start.expand(1, 5, 6).contiguous())
    states, _ = pad_packed_sequence(expected, batch_first=True, total_length=8)
    inputs = torch.nn.functional.linear(packing.pack(x), rnn.weight_ih_l0, rnn.bias_ih_l0 + rnn.bias_hh_l0)
    ours = packing.unpack(dmm.dmm_scan.relu_rnn(packing.counts, start, inputs, rnn.weight_hh_l0))
    torch.testing.assert_close(ours, states, rtol=1e-12, atol=1e-12)
    leaves = [start, *rnn.parameters()]
    torch.testing.assert_close(gradients([ours], leaves), gradients([states], leaves), rtol=1e-12, atol=1e-12)
