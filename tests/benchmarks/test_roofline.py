"""The roofline counts operations and parameters exactly; memory is that of the contestant's own process."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

Timing = Callable[[str], Any]
CPU = torch.device("cpu")
SIZES = {"units": 6, "batch": 3, "window": 5, "outputs": 11}


@pytest.fixture(params=[("tanh", "ptb"), ("lstm", "ptb"), ("tanh", "jsb"), ("lstm", "jsb")], ids="-".join)
def shape(timing: Timing, request: pytest.FixtureRequest) -> Any:
    cell, data = request.param
    return timing("shapes").Shape(cell=cell, layers=3, data=data, **SIZES)


def test_operations_are_those_that_torch_counts(timing: Timing, shape: Any) -> None:
    loop = timing("contestants").build("loop", shape, timing("shapes").windows(shape, CPU), CPU)
    with FlopCounterMode(display=False) as counted:
        loop.step()
    roofline, gates = timing("roofline"), {"tanh": 1, "lstm": 4}[shape.cell]
    expected = roofline.recurrence_operations(shape) + roofline.emission_operations(shape)
    # the state that a window begins with needs no gradient: one step's product less in each layer
    assert counted.get_total_flops() == expected - 3 * 2 * shape.batch * gates * shape.units**2


def test_weights_are_those_that_are_trained(timing: Timing, shape: Any) -> None:
    plain = timing("baselines").DeterministicRNN(shape)
    assert timing("roofline").num_parameters(shape) == sum(weight.numel() for weight in plain.parameters())


def test_particles_share_only_the_input_projections(timing: Timing) -> None:
    roofline, shape = timing("roofline"), timing("shapes").Shape
    one, ten = (roofline.recurrence_operations(shape(particles=n)) for n in (1, 10))
    assert ten == one * 11 / 2  # one layer as wide as its inputs: half of the products are the inputs'
    assert roofline.emission_operations(shape(particles=10)) == 10 * roofline.emission_operations(shape())


def test_the_roofline_is_operations_over_rate_and_bytes_over_bandwidth(timing: Timing) -> None:
    roofline, shape = timing("roofline"), timing("shapes").Shape()
    machine = roofline.Machine(float32=1e9, bfloat16=4e9, bandwidth=1e8)
    recurrence, emission = roofline.recurrence_operations(shape), roofline.emission_operations(shape)
    traffic = 32 * roofline.num_parameters(shape) / 1e8
    for contestant, products, seconds in (
        ("ours", (recurrence + emission) / 1e9, traffic),
        ("ours-bfloat16", (recurrence + emission) / 4e9, traffic),
        ("additive", recurrence / 1e9, 0.0),
        ("additive-bfloat16", recurrence / 4e9, 0.0),
        ("softmax", emission / 1e9, 0.0),
        ("softmax-bfloat16", emission / 4e9, 0.0),
    ):
        bound = roofline.roofline(contestant, shape, machine)
        assert bound == {"products": pytest.approx(products), "traffic": pytest.approx(seconds)}


@pytest.mark.slow
def test_peak_memory_holds_weights_gradients_and_moments_and_nothing_of_the_parent(timing: Timing) -> None:
    shape = timing("shapes").Shape(units=64, batch=2, window=2, outputs=60_000)
    parents = torch.ones(2**27)  # 512 MB in this process, which a child must not count
    peak = timing("memory").measure_memory("plain", shape, CPU, 1).peak_bytes
    trained = 4 * 4 * timing("roofline").num_parameters(shape)
    assert 0.95 * trained < peak < 1.5 * trained < parents.nbytes
