"""The stepwise network against the model, given the same noise."""

from functools import partial
from typing import Any

import pytest
import torch
from pyro import poutine
from torch import Tensor

from noisin_pyro.models import CELLS, NoisyRNN, StepwiseRNN, innovations
from noisin_pyro.recurrence.matmul import has_bfloat16

LAYERS, BATCH, TIME, FEATURES, UNITS = 2, 3, 4, 2, 5


def in_the_program(rnn: NoisyRNN, inputs: Tensor, state: Any) -> tuple[dict[int, Tensor], Tensor, Any]:
    """ε of each noisy layer in one run of the program, its output and its last states."""
    trace = poutine.trace(innovations(rnn)).get_trace(inputs, state)
    nodes: dict[str, Any] = dict(trace.nodes)
    noise = {
        int(name.split("_")[1]): site["value"]
        for name, site in nodes.items()
        if site["type"] == "sample" and name.endswith("_noise")
    }
    return noise, *nodes["_RETURN"]["value"]


def moved(walk: StepwiseRNN, noise: dict[int, Tensor], layer: int, mean: Tensor) -> Tensor:
    return mean + walk.scale(layer, mean) * noise[layer]


@pytest.mark.parametrize(
    "options",
    [{}, {"noise": "gamma:multiplicative"}, {"input_spread": 0.2}, {"feedback": False}, {"spread": [0.0, 0.3]}],
    ids=str,
)
@pytest.mark.parametrize("cell", CELLS)
def test_same_noise_gives_the_same_states(cell: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    rnn = NoisyRNN(FEATURES, UNITS, LAYERS, cell=cell, **options).double()
    inputs = torch.randn(BATCH, TIME, FEATURES).double()
    state = torch.randn(LAYERS, BATCH, UNITS).double()
    given = (state, state.flip(0)) if rnn.cell.has_memory else state
    noise, z, end = in_the_program(rnn, inputs, given)
    assert noise

    walk, path = rnn.stepwise(inputs, given), []
    states = walk.start
    for t in range(TIME):
        now = {layer: each[:, t] for layer, each in noise.items()}
        out, states = walk.step(t, states, partial(moved, walk, now))
        path.append(out)
    torch.testing.assert_close(torch.stack(path, 1), z)
    last_z, last_c = end if rnn.cell.has_memory else (end, None)
    torch.testing.assert_close(torch.stack(states.z), last_z)
    if last_c is not None:
        torch.testing.assert_close(torch.stack([c for c in states.c if c is not None]), last_c)


@pytest.mark.skipif(not has_bfloat16(), reason="this processor has no bfloat16")
@pytest.mark.parametrize(
    "options",
    [{}, {"noise": "gamma:multiplicative"}, {"input_spread": 0.2}, {"feedback": False}, {"noise": "bernoulli"}],
    ids=str,
)
@pytest.mark.parametrize("cell", CELLS)
def test_products_are_rounded_where_the_layers_round_them(cell: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    rnn = NoisyRNN(FEATURES, 16, LAYERS, cell=cell, matmul_precision="bfloat16", **options)
    inputs = torch.randn(BATCH, TIME, FEATURES)
    noise, z, _ = in_the_program(rnn, inputs, None)
    is_rounded, walks = rnn.backends(1) == ["scan"] * LAYERS, {}
    for precision in ("bfloat16", "float32"):
        rnn.matmul_precision = precision
        walk, path = rnn.stepwise(inputs), []
        states = walk.start
        for t in range(TIME):
            now = {layer: each[:, t] for layer, each in noise.items()}
            out, states = walk.step(t, states, partial(moved, walk, now))
            path.append(out)
        walks[precision] = (torch.stack(path, 1) - z).abs().max()
    assert walks["bfloat16"] < 1e-6
    assert (walks["float32"] > 1e-5) == is_rounded


def test_law_of_a_step_has_the_moments_of_native_beta() -> None:
    torch.manual_seed(0)
    rnn = NoisyRNN(FEATURES, UNITS, cell="sigmoid", noise="beta:native", spread=0.4).double()
    inputs, mean = torch.zeros(1, 1, FEATURES).double(), torch.rand(1, UNITS).double()
    law = rnn.stepwise(inputs).law(1, mean)
    torch.testing.assert_close(law.mean, mean)
    torch.testing.assert_close(law.variance, 0.16 * mean * (1 - mean))
