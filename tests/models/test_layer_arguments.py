"""Empty batches, dtypes, devices and kinds of numbers in the arguments of layers."""

import copy
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import noisin_pyro as nz
from noisin_pyro._lookup import integer
from noisin_pyro.models import CELLS, Dropout, NoisyRNN, Spread

from ..small_layers import (
    BATCH,
    FEATURES,
    LENGTHS,
    STEPS,
    UNITS,
    close,
    make_inputs,
    make_rnn,
    make_state,
    parts,
    traced,
)

BACKENDS = ("auto", "fused", "scan", "loop")


def made(backend: str, *args: Any, **options: Any) -> NoisyRNN:
    """A layer, or a skipped test if the backend can't run it."""
    rnn = make_rnn(*args, backend=backend, **options)
    try:
        rnn.backends(BATCH)
    except ValueError:
        pytest.skip("not this backend")
    return rnn


class TestEmptyBatch:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("noise", ["gaussian", "gamma:multiplicative", "categorical", None])
    @pytest.mark.parametrize("cell", CELLS)
    def test_layer(self, cell: str, noise: str | None, backend: str) -> None:
        spreads = {"spread": 0.0} if noise is None else {}
        rnn = made(backend, cell, noise or "gaussian", num_layers=2, **spreads)
        state = tuple(part[:, :0] for part in parts(make_state(rnn)))
        for lengths in (None, LENGTHS[:0]):
            x = make_inputs(0).requires_grad_()
            z, end = rnn(x, state if rnn.cell.has_memory else state[0], lengths)
            assert z.shape == (0, STEPS, UNITS)
            assert [part.shape for part in parts(end)] == [(2, 0, UNITS)] * len(state)
            weights = [parameter for name, parameter in rnn.named_parameters() if "spread" not in name]
            for gradient in torch.autograd.grad(z.sum() + sum(part.sum() for part in parts(end)), [x, *weights]):
                assert not gradient.count_nonzero()

    @pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
    def test_densities_of_nothing_are_zero(self, cell: str) -> None:
        for view in (lambda model: model, nz.unroll, nz.noise_off):  # not in a plate: Pyro's have at least one element
            trace = traced(view(make_rnn(cell, num_layers=2)), make_inputs(0), None, LENGTHS[:0])
            assert float(trace.log_prob_sum().detach() if trace.stochastic_nodes else 0.0) == 0.0


class TestDtypes:
    @pytest.mark.parametrize("backend", BACKENDS)
    @pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
    def test_another_dtype_is_refused_alike(self, cell: str, backend: str) -> None:
        rnn, x = made(backend, cell, spread=0.0), make_inputs()
        state = parts(make_state(rnn))
        wrong = {"inputs": (x.float(), state)}
        for i, name in enumerate(("state", r"state \(memory\)")[: len(state)]):
            wrong[name] = (x, (*state[:i], state[i].float(), *state[i + 1 :]))
        for name, (inputs, given) in wrong.items():
            message = (
                rf"{name} must have the dtype of the weights, torch.float64, got torch.float32; convert the tensor"
            )
            for call in (rnn, rnn.stepwise):
                with pytest.raises(ValueError, match=message):
                    call(inputs, given if rnn.cell.has_memory else given[0])

    def test_remedies_work(self) -> None:
        rnn, x = make_rnn().float(), make_inputs()
        assert rnn(x.to(torch.float32))[0].dtype == torch.float32
        assert rnn.to(torch.float64)(x)[0].dtype == torch.float64

    def test_scores_of_data_of_another_dtype(self) -> None:
        model = nz.SequenceModel(NoisyRNN(FEATURES, UNITS), "gaussian", 2)
        with pytest.raises(ValueError, match="inputs must have the dtype of the weights"):
            nz.evaluate(model, nz.data.Sequences(make_inputs(), torch.randn(BATCH, STEPS, 2)))

    def test_autocast_converts(self) -> None:
        rnn, x = make_rnn(spread=0.0).float(), make_inputs().float()
        with torch.autocast("cpu", torch.bfloat16):
            z, end = rnn(x)
            rnn(x.bfloat16(), end.float())
        assert (z.float() - rnn(x)[0]).abs().max() < 0.05


def test_a_packed_sequence_is_refused_with_what_to_do() -> None:
    rnn, x = make_rnn(spread=0.0), make_inputs()
    packed = pack_padded_sequence(x, torch.tensor([5, 3, 2, 1]), batch_first=True)
    with pytest.raises(ValueError, match=r"got a PackedSequence; use inputs, lengths = .*pad_packed_sequence"):
        rnn(packed)
    inputs, lengths = pad_packed_sequence(packed, batch_first=True)
    close(rnn(inputs, lengths=lengths)[1], rnn(x, lengths=torch.tensor([5, 3, 2, 1]))[1])


@pytest.mark.parametrize("inputs", [np.zeros((BATCH, STEPS, FEATURES)), [[0.0, 0.0]], None])
def test_inputs_that_are_no_tensors(inputs: Any) -> None:
    with pytest.raises(ValueError, match=r"inputs must be a tensor, got .*; use torch.as_tensor"):
        make_rnn()(inputs)


class TestMeta:
    OPTIONS: tuple[dict[str, Any], ...] = (
        {},
        {"spread": 0.0},
        {"noise": "dirichlet", "regularizer": "D"},
        {"noise": "gamma:multiplicative", "cell": "gru"},
        {"noise": "beta:native", "cell": "sigmoid"},
        {"spread": Spread(prior=dist.Gamma(2.0, 4.0)), "cell": "lstm", "input_spread": 0.1},
    )

    @pytest.mark.parametrize("options", OPTIONS)
    def test_construction_and_shapes(self, options: dict[str, Any]) -> None:
        with torch.device("meta"):
            rnn = NoisyRNN(FEATURES, UNITS, 2, **options)
        assert all(parameter.is_meta for parameter in rnn.parameters())
        z, end = nz.noise_off(rnn)(torch.empty(BATCH, STEPS, FEATURES, device="meta"), lengths=LENGTHS.to("meta"))
        assert z.is_meta and z.shape == (BATCH, STEPS, UNITS)
        assert all(part.shape == (2, BATCH, UNITS) for part in parts(end))

    @pytest.mark.parametrize("noise", ["beta:native", "dirichlet", "exponential"])
    def test_noise_without_values_is_refused(self, noise: str) -> None:
        rnn = NoisyRNN(FEATURES, UNITS, cell="sigmoid", noise=noise).to("meta")
        with pytest.raises(ValueError, match=r"cannot be drawn on the meta device .* use noise_off\(rnn\)"):
            rnn(torch.empty(BATCH, STEPS, FEATURES, device="meta"))

    def test_materialized_and_reset(self) -> None:
        with torch.device("meta"):
            spread = Spread(0.4, floor=0.1, learn=True)
            rnn = NoisyRNN(FEATURES, UNITS, spread=spread)
            native = NoisyRNN(FEATURES, UNITS, cell="sigmoid", noise="beta:native", spread=spread)
        for each in (rnn, native):
            each.to_empty(device="cpu")
            for module in each.modules():
                if hasattr(module, "reset_parameters"):
                    module.reset_parameters()
            assert each.spreads() == {"gamma_1": pytest.approx(0.4)}
            for weight in each.parameters(recurse=False):
                assert 0 < weight.abs().max() <= UNITS**-0.5

    def test_layers_and_spreads_are_on_one_device(self) -> None:
        spread = Spread(0.4, learn=True)  # made before the default device is set
        with torch.device("meta"):
            rnn = NoisyRNN(FEATURES, UNITS, spread=spread)
        assert all(parameter.is_meta for parameter in rnn.parameters())


def test_reset_redraws_the_means_of_weights_with_priors() -> None:
    model = nz.SequenceModel(make_rnn(), "gaussian", 2, weight_prior="normal")
    before = copy.deepcopy(dict(model.rnn.named_parameters(recurse=False)))
    model.rnn.reset_parameters()
    for name, parameter in model.rnn.named_parameters(recurse=False):
        assert not torch.equal(parameter, before[name]), name


class TestNumbers:
    @pytest.mark.parametrize("number", [np.int64(3), np.int32(3), np.uint8(3), torch.tensor(3), 3])
    def test_integers_of_any_type(self, number: Any) -> None:
        assert type(integer("size", number)) is int and integer("size", number) == 3

    @pytest.mark.parametrize("number", [np.float64(3.0), 3.0, np.int64(0), -1, True, np.True_, "3", None, [3]])
    def test_other_numbers(self, number: Any) -> None:
        with pytest.raises(ValueError, match="size must be a positive integer, got "):
            integer("size", number)
        with pytest.raises(ValueError, match="size must be an integer of at least 7, got "):
            integer("size", number, 7)

    def test_sizes_of_numpy(self) -> None:
        sizes = np.array([FEATURES, UNITS, 2])
        rnn = NoisyRNN(*sizes)
        assert [type(size) for size in (rnn.input_size, rnn.hidden_size, rnn.num_layers)] == [int] * 3
        assert rnn(torch.zeros(BATCH, STEPS, FEATURES))[0].shape == (BATCH, STEPS, UNITS)
        model = nz.SequenceModel(rnn, "gaussian", np.int64(2))
        data = nz.data.Sequences(torch.zeros(BATCH, STEPS, FEATURES), torch.zeros(BATCH, STEPS, 2))
        for method, options in {"importance": {}, "ensemble": {}, "particle-filter": {"islands": np.int16(2)}}.items():
            nz.evaluate(model, data, method, num_samples=np.int64(4), **options)

    def test_particles_windows_and_texts_of_numpy(self) -> None:
        stream = nz.data.Stream(torch.arange(20) % 7, np.int64(2), np.int64(5))
        model = nz.LanguageModel(7, UNITS)
        batch = next(iter(stream.batches()))
        nz.PriorAsGuide_ELBO(np.int64(2), max_plate_nesting=1)(model)(batch.inputs, batch.targets)
        assert nz.generate(model, np.int64(3), num_samples=np.int32(2)).shape == (2, 3)
        nz.guides.get("mean-field", model, hidden_size=np.int64(4))

    @pytest.mark.parametrize("spread", [np.array([0.3, 0.2]), np.array([0.3, 0.2], np.float32), (np.float32(0.3), 0.2)])
    def test_spreads_of_numpy(self, spread: Any) -> None:
        assert NoisyRNN(FEATURES, UNITS, 2, spread=spread).spreads() == pytest.approx({"gamma_1": 0.3, "gamma_2": 0.2})

    @pytest.mark.parametrize("spread", [np.array(0.3), np.float16(0.3), np.int64(1)])
    def test_one_number_of_numpy_for_all_layers(self, spread: Any) -> None:
        value = float(spread)
        assert NoisyRNN(FEATURES, UNITS, 2, spread=spread).spreads() == pytest.approx(
            {"gamma_1": value, "gamma_2": value}
        )

    @pytest.mark.parametrize("spread", [np.array([0.3]), np.zeros((2, 1)), np.array([0.3, -0.2]), np.array(["a", "b"])])
    def test_other_arrays_are_refused(self, spread: Any) -> None:
        with pytest.raises(ValueError, match=r"spread|value"):
            NoisyRNN(FEATURES, UNITS, 2, spread=spread)

    def test_rates_of_numpy(self) -> None:
        assert Dropout(input=np.float32(0.5)).drops


def test_states_without_gradients_under_functorch_are_tensors() -> None:
    """A carried state that was computed inside a transform has no dtype of its own to convert."""
    rnn = make_rnn("lstm", spread=0.0)

    def carried(x: Tensor) -> Tensor:
        _, state = rnn(x)
        return rnn(x, state)[0].sum()

    rnn(make_inputs())
    gradient = torch.func.grad(carried)(make_inputs())
    assert gradient.isfinite().all() and gradient.count_nonzero()
