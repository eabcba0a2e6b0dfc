"""The floor counts the operations and the weights that there are; memory is the contestant's own."""

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
    floor, gates = timing("floor"), {"tanh": 1, "lstm": 4}[shape.cell]
    expected = floor.recurrence_operations(shape) + floor.emission_operations(shape)
    # the state that a window begins with needs no gradient: one step's product less in each layer
    assert counted.get_total_flops() == expected - 3 * 2 * shape.batch * gates * shape.units**2


def test_weights_are_those_that_are_trained(timing: Timing, shape: Any) -> None:
    plain = timing("torch_networks").Plain(shape)
    assert timing("floor").parameters(shape) == sum(weight.numel() for weight in plain.parameters())


def test_particles_share_the_inputs_products_alone(timing: Timing) -> None:
    floor, shape = timing("floor"), timing("shapes").Shape
    one, ten = (floor.recurrence_operations(shape(particles=n)) for n in (1, 10))
    assert ten == one * 11 / 2  # one layer as wide as its inputs: half of the products are the inputs'
    assert floor.emission_operations(shape(particles=10)) == 10 * floor.emission_operations(shape())


def test_the_floor_is_operations_over_rate_and_bytes_over_bandwidth(timing: Timing) -> None:
    floor, shape = timing("floor"), timing("shapes").Shape()
    machine = floor.Machine(float32=1e9, bfloat16=4e9, bandwidth=1e8)
    single, half = (floor.floor(shape, machine, bfloat16=each) for each in (False, True))
    recurrence, emission = floor.recurrence_operations(shape), floor.emission_operations(shape)
    assert single["products"] == pytest.approx((recurrence + emission) / 1e9)
    assert half["products"] == pytest.approx((recurrence + emission) / 4e9)
    assert single["traffic"] == half["traffic"] == pytest.approx(32 * floor.parameters(shape) / 1e8)


@pytest.mark.slow
def test_peak_memory_holds_weights_gradients_and_moments_and_nothing_of_the_parent(timing: Timing) -> None:
    shape = timing("shapes").Shape(units=64, batch=2, window=2, outputs=60_000)
    held = torch.ones(2**27)  # 512 MB here, which a child must not count
    found = timing("memory").taken("plain", shape, CPU, 1).peak_bytes
    trained = 4 * 4 * timing("floor").parameters(shape)
    assert 0.95 * trained < found < 1.5 * trained < held.nbytes


def test_what_runs_elsewhere_is_not_what_runs_here(
    timing: Timing, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    module = timing("elsewhere")
    ticks = module.os.sysconf("SC_CLK_TCK")
    stat = tmp_path / "stat"
    clock, ours = [0.0], [0.0]
    monkeypatch.setattr(module, "STAT", stat)
    monkeypatch.setattr(module.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(module.time, "process_time", lambda: ours[0])
    stat.write_text("cpu 100 0 0 900 50 0 0 0 0 0\ncpu0 1 2\n")
    with module.Elsewhere() as elsewhere:
        clock[0], ours[0] = 10.0, 12.0  # both processors, of 20 seconds: 12 ours, 3 of user, system and steal not ours
        stat.write_text(f"cpu {100 + 13 * ticks} 0 {1 * ticks} {900 + 4 * ticks} {50 + ticks} 0 0 {1 * ticks} 0 0\n")
    assert elsewhere.share == pytest.approx(3 / 20)
