"""The layer as a drop-in replacement for torch's layers, and its errors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import noisin_pyro as nz
from noisin_pyro.models import CELLS, NoisyRNN, Spread, site_info

from ..small_layers import (
    BATCH,
    FEATURES,
    LENGTHS,
    SPREADS,
    STEPS,
    UNITS,
    close,
    in_plates,
    make_inputs,
    make_rnn,
    make_state,
    parts,
    traced,
)

TORCH_LAYERS: dict[str, Callable[..., nn.RNNBase]] = {
    "tanh": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="tanh", **options),
    "relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
    "lstm": nn.LSTM,
    "gru": nn.GRU,
}


def torch_layer(cell: str, num_layers: int = 1) -> nn.RNNBase:
    return TORCH_LAYERS[cell](FEATURES, UNITS, num_layers, batch_first=True).double()


def gradients(module: nn.Module, outputs: Tensor, state: Any, leaves: list[Tensor]) -> dict[str, Tensor]:
    """Gradients of a fixed function of outputs and final state, for every parameter and leaf."""
    value = (outputs.sin() * torch.linspace(-1, 1, UNITS, dtype=torch.float64)).sum()
    value = value + sum(part.square().sum() for part in parts(state))
    names = [*dict(module.named_parameters()), *(f"leaf {i}" for i in range(len(leaves)))]
    return dict(zip(names, torch.autograd.grad(value, [*module.parameters(), *leaves]), strict=True))


@pytest.mark.parametrize("lengths", [None, torch.tensor([3, 5, 1, 2])])
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("cell", TORCH_LAYERS)
def test_without_noise_equals_the_layer_of_torch(
    cell: str, num_layers: int, with_state: bool, lengths: Tensor | None
) -> None:
    theirs, ours = torch_layer(cell, num_layers), make_rnn(cell, num_layers=num_layers, spread=0.0)
    ours.load_state_dict(theirs.state_dict())
    inputs = make_inputs().requires_grad_()
    state = make_state(ours) if with_state else None
    leaves = [inputs] if state is None else [inputs, *(part.requires_grad_() for part in parts(state))]

    z, end = ours(inputs, state, lengths)
    if lengths is None:
        expected, expected_end = theirs(inputs, state)
    else:
        packed = pack_padded_sequence(inputs, lengths, batch_first=True, enforce_sorted=False)
        expected, expected_end = theirs(packed, state)
        expected, _ = pad_packed_sequence(expected, batch_first=True, total_length=STEPS)
        z = torch.where(nz.models.real_steps(lengths, STEPS)[..., None], z, 0.0)  # torch pads with zeros

    close(z, expected)
    for actual, part in zip(parts(end), parts(expected_end), strict=True):
        close(actual, part)
    expected_gradients = gradients(theirs, expected, expected_end, leaves)
    actual_gradients = gradients(ours, z, end, leaves)
    assert actual_gradients.keys() == expected_gradients.keys()
    for name, gradient in actual_gradients.items():
        close(gradient, expected_gradients[name])


@pytest.mark.parametrize("spread", [0.0, 0.3, Spread(0.4, learn=True)])
@pytest.mark.parametrize("cell", TORCH_LAYERS)
def test_state_dict_of_torch_loads_strictly_and_keeps_the_spread(cell: str, spread: float | Spread) -> None:
    theirs, ours = torch_layer(cell, 2), make_rnn(cell, num_layers=2, spread=spread)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            if name.startswith("spread_"):
                parameter.add_(0.5)
    before = ours.spreads()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert ours.spreads() == before
    inputs = make_inputs()
    close(nz.noise_off(ours)(inputs)[0], theirs(inputs)[0])


def test_state_dict_includes_the_learned_spread() -> None:
    first, second = (make_rnn(num_layers=2, spread=Spread(0.4, learn=True)) for _ in range(2))
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.5)
    second.load_state_dict(first.state_dict())
    assert second.spreads() == first.spreads()


@pytest.mark.parametrize("learn", [False, True])
def test_state_dict_without_a_weight_is_refused(learn: bool) -> None:
    state = torch_layer("tanh").state_dict()
    del state["bias_hh_l0"]
    with pytest.raises(RuntimeError, match="bias_hh_l0"):
        make_rnn(spread=Spread(0.4, learn=learn)).load_state_dict(state)


def test_state_dict_of_torch_loads_inside_a_larger_model() -> None:
    model = nz.SequenceModel(make_rnn(spread=Spread(0.4, learn=True)), "gaussian", 2).double()
    theirs = {f"rnn.{name}": value for name, value in torch_layer("tanh").state_dict().items()}
    missing, unexpected = model.load_state_dict(theirs, strict=False)
    assert not unexpected
    assert all(name.startswith("emission.") for name in missing)
    close(model.rnn.weight_hh_l0, theirs["rnn.weight_hh_l0"], 0.0)


@pytest.mark.parametrize("spread", [0.0, [0.0, 0.0]])
def test_without_spread_nothing_is_sampled(spread) -> None:
    trace = poutine.trace(make_rnn(num_layers=2, spread=spread)).get_trace(make_inputs())
    assert not trace.stochastic_nodes


def test_each_noisy_layer_is_one_site() -> None:
    rnn = make_rnn(num_layers=3, spread=[0.3, 0.0, 0.2], input_spread=0.1, name="h")
    trace = poutine.trace(rnn).get_trace(make_inputs())
    assert trace.stochastic_nodes == ["h_0", "h_1", "h_3"]


@pytest.mark.parametrize("batch", [(), (BATCH,), (3, BATCH)])
@pytest.mark.parametrize("cell", CELLS)
def test_shapes(cell: str, batch: tuple[int, ...]) -> None:
    z, state = make_rnn(cell, num_layers=2)(torch.randn(*batch, STEPS, FEATURES, dtype=torch.float64))
    assert z.shape == (*batch, STEPS, UNITS)
    assert len(parts(state)) == (2 if cell == "lstm" else 1)
    for part in parts(state):
        assert part.shape == (2, *batch, UNITS)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_lengths_may_be_any_integers(dtype: torch.dtype) -> None:
    rnn, inputs = make_rnn("lstm", spread=0.0), make_inputs()
    for actual, expected in zip(rnn(inputs, None, LENGTHS.to(dtype))[1], rnn(inputs, None, LENGTHS)[1], strict=True):
        close(actual, expected, 0.0)


def test_weights_are_initialized_as_in_torch() -> None:
    rnn = NoisyRNN(30, 25, 2)
    for parameter in rnn.parameters():
        assert 0.15 < parameter.abs().max() <= 0.2


SIZES: dict[str, Any] = {"input_size": FEATURES, "hidden_size": UNITS}
LEARNED = Spread(0.3, learn=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden_size": 0}, "hidden_size.*positive.*0"),
        ({"input_size": 2.5}, "input_size.*positive.*2.5"),
        ({"num_layers": -1}, "num_layers.*positive.*-1"),
        ({"cell": "lsmt"}, "cell.*tanh.*gru.*did you mean 'lstm'"),
        ({"noise": "gausian"}, "gausian.*gaussian"),
        ({"noise": "gaussian:native"}, "gaussian.*native.*additive"),
        ({"num_layers": 3, "spread": [0.1, 0.2]}, "spread must be .*a list of 3 .*got "),
        ({"spread": -0.3}, "value.*-0.3"),
        ({"noise": "gamma:native"}, r"gamma:native.*tanh.*sigmoid.*additive"),
        ({"noise": "gamma:native", "cell": "relu"}, r"gamma:native.*relu"),
        ({"noise": "gamma:native", "cell": "identity"}, r"gamma:native.*identity"),
        ({"noise": "poisson:native", "cell": "lstm"}, r"poisson:native.*lstm"),
        ({"noise": "beta:native", "cell": "gru"}, r"beta:native.*gru"),
        ({"noise": "beta:native", "cell": "sigmoid", "spread": 1.0}, "below 1.*got 1"),
        ({"noise": "poisson:native", "cell": "sigmoid", "spread": 1e-20}, "above 1e-09 .*got 1e-20; use 0, or the add"),
        ({"noise": "beta:native", "cell": "sigmoid", "spread": Spread(1.5, learn=True)}, "below 1.*1.5"),
        (
            {"noise": "beta:native", "cell": "sigmoid", "spread": Spread(prior=dist.Gamma(2.0, 4.0))},
            "prior.*end at 1",
        ),
        ({"noise": "bernoulli:multiplicative", "spread": LEARNED}, "discrete distribution.*additive"),
        ({"noise": "poisson:multiplicative", "spread": LEARNED}, "discrete distribution"),
        ({"noise": "poisson:native", "cell": "sigmoid", "spread": LEARNED}, "discrete distribution"),
        ({"noise": "dirichlet", "hidden_size": 1}, "dirichlet.*2 or more"),
        ({"noise": "categorical", "hidden_size": 1}, "categorical.*2 or more"),
        ({"noise": "categorical", "input_size": 1, "input_spread": 0.1}, "categorical.*2 or more"),
        ({"feedback": False, "num_layers": 2, "spread": [0.1, 0.2]}, "feedback=False.*1.*must be 0"),
        ({"feedback": False, "input_spread": 0.1}, "feedback=False.*the input.*must be 0"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoisyRNN(**(SIZES | options))


@pytest.mark.parametrize("spread", [torch.tensor(0.3), np.float64(0.3), np.array(0.3), torch.tensor([0.3])])
def test_spreads_may_be_numbers_of_torch_and_numpy(spread: Any) -> None:
    rnn = NoisyRNN(**SIZES, spread=spread)
    assert rnn.spread_1.fixed == pytest.approx(0.3)
    if spread.ndim == 0:
        assert NoisyRNN(**SIZES, input_spread=spread).spread_0.fixed == Spread(spread).fixed == rnn.spread_1.fixed


@pytest.mark.parametrize("spread", [torch.tensor(0.3, requires_grad=True), "0.3", None, True, torch.ones(2)])
def test_spreads_that_are_not_numbers(spread: Any) -> None:
    with pytest.raises(ValueError, match=r"[sS]pread"):
        NoisyRNN(**SIZES, spread=spread)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"inputs": torch.zeros(BATCH, STEPS, FEATURES + 1)}, rf"inputs.*{FEATURES}.*got.*{FEATURES + 1}"),
        ({"inputs": torch.zeros(FEATURES)}, "inputs"),
        ({"inputs": torch.zeros(BATCH, 0, FEATURES)}, "inputs.*at least one step"),
        ({"inputs": torch.zeros(BATCH, STEPS, FEATURES, dtype=torch.long)}, "inputs.*floating-point.*int64"),
        ({"lengths": torch.ones(BATCH)}, "lengths.*integers.*float32"),
        ({"lengths": torch.ones(BATCH, dtype=torch.bool)}, "lengths.*integers.*bool"),
        ({"lengths": [1, 2, 3, 4]}, "lengths"),
        ({"lengths": torch.ones(BATCH - 1, dtype=torch.long)}, rf"lengths.*\({BATCH},\).*\({BATCH - 1},\)"),
        ({"lengths": torch.tensor([0, 1, STEPS + 1, 2])}, rf"lengths.*0 to {STEPS}.*0 to {STEPS + 1}"),
        ({"lengths": torch.tensor([0, 1, -1, 2])}, rf"lengths.*0 to {STEPS}.*-1 to 2"),
        ({"state": torch.zeros(2, BATCH, UNITS)}, "state.*units"),
        ({"state": torch.zeros(1, BATCH, UNITS + 1)}, "state.*units"),
        ({"state": torch.zeros(1, BATCH + 1, UNITS)}, "state.*units"),
        ({"state": torch.zeros(BATCH, UNITS)}, "state.*units"),
        ({"state": (torch.zeros(1, BATCH, UNITS),) * 2}, "state.*tanh.*one tensor.*2"),
    ],
)
def test_wrong_calls(call: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoisyRNN(**SIZES)(**({"inputs": torch.zeros(BATCH, STEPS, FEATURES)} | call))


def test_lstm_needs_both_states() -> None:
    with pytest.raises(ValueError, match=r"state.*lstm.*pair \(z, c\).*1"):
        NoisyRNN(**SIZES, cell="lstm")(torch.zeros(BATCH, STEPS, FEATURES), torch.zeros(1, BATCH, UNITS))


def test_a_cell_and_a_family_may_be_instances() -> None:
    rnn = make_rnn(CELLS["gru"](), nz.noise.get("gamma", concentration=3.0))  # type: ignore[arg-type]
    assert site_info(traced(rnn, make_inputs()).nodes["z_1"]).family is rnn.noise
    assert rnn.cell.name == "gru"
    assert rnn.spreads() == {"gamma_1": SPREADS[0]}


@pytest.mark.parametrize("form", ["gamma:native", "beta:native", "poisson:native"])
def test_native_noise_on_inputs_is_refused(form: str) -> None:
    with pytest.raises(ValueError, match=r"inputs can be anywhere; use input_spread=0"):
        make_rnn("sigmoid", noise=form, spread=0.3, input_spread=0.3)


@pytest.mark.parametrize("noise", ["gamma:native", "beta:native", "poisson:native"])
@pytest.mark.parametrize("bias", [-200.0, 40.0])
def test_native_noise_is_finite_for_a_saturated_sigmoid(noise: str, bias: float) -> None:
    rnn = NoisyRNN(1, 2, cell="sigmoid", noise=noise, spread=0.3)
    torch.nn.init.constant_(rnn.bias_ih_l0, bias)  # the mean rounds to 0 or to 1
    trace = traced(in_plates(rnn, None), torch.zeros(4, 3, 1))
    assert trace.nodes["z_1"]["value"].isfinite().all()
    assert not trace.nodes["z_1"]["fn"].log_prob(trace.nodes["z_1"]["value"]).isnan().any()
