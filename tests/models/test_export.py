"""A network with its noise off as torch's own layers."""

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import noisin_pyro as nz
from noisin_pyro.models import CELLS, EMISSIONS, Cell, Emission, Scaled
from noisin_pyro.models.scaled import is_real, support_of

from ..small_layers import make_inputs, make_rnn, parts

WORDS = torch.tensor([[0, 3, 1, 6], [2, 2, 5, 4], [6, 1, 0, 0]])

VECTORS = [name for name, emission in EMISSIONS.items() if emission.event_dim == 1]


def close(actual: Any, expected: Any) -> None:
    for one, other in zip(parts(actual), parts(expected), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"tie_weights": True, "noise": "gamma:multiplicative", "spread": 0.8},
        {"weight_prior": "normal", "input_spread": 0.3},
        {"regularizer": "D", "feedback": False, "emission_hidden_size": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("cell", CELLS)
def test_logits_and_state_are_those_without_noise(cell: str, options: dict[str, Any]) -> None:
    model = nz.LanguageModel(7, 5, 2, cell=cell, **options).double()
    network, state, expected = nz.export(model), None, None
    for window in WORDS.split(2, 1):  # the second continues from the state of the first
        logits, state = network(window, state)
        out = nz.noise_off(model)(window, state=expected)
        expected = out.state
        close(logits.log_softmax(-1), out.emission.logits)
        close(state, expected)


@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize(
    ("name", "is_scaled"), [(name, False) for name in EMISSIONS] + [(name, True) for name in VECTORS]
)
def test_the_read_out_is_the_parameter_of_the_emission(name: str, size: int, is_scaled: bool) -> None:
    rnn = make_rnn("gru").double()
    emission = EMISSIONS[name](rnn.hidden_size, size).double()
    if is_scaled:
        scaling = ((100.0, -3.0)[:size], (20.0, 0.5)[:size]) if is_real(support_of(emission)) else ()
        emission = Scaled(emission, *scaling)
    model, inputs = nz.SequenceModel(rnn, emission), make_inputs()
    value, law = nz.export(model)(inputs)[0], nz.noise_off(model)(inputs).emission
    if name == "categorical":
        close(value.log_softmax(-1), law.logits)
    elif name == "bernoulli":
        close(value.sigmoid(), law.mean)
    elif name in ("poisson", "negative-binomial"):
        close(value.exp(), law.mean)
    elif name == "heteroscedastic-gaussian":
        mean, log_scale = value.chunk(2, -1)
        close(mean, law.mean)
        close(log_scale.exp(), law.variance.sqrt())
    else:
        close(value, law.mean)


class Bare(nn.Module):
    """The same three layers without this package."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(7, 5), nn.LSTM(5, 5, 2, batch_first=True)
        self.linear = nn.Linear(5, 7)

    def forward(self, words: Tensor) -> Tensor:
        return self.linear(self.rnn(self.embedding(words))[0])


def test_the_state_dict_loads_into_torch_s_layers() -> None:
    network = nz.export(nz.LanguageModel(7, 5, 2, cell="lstm").double())
    bare = Bare().double()
    bare.load_state_dict(network.state_dict())
    close(bare(WORDS), network(WORDS)[0])


def test_weights_are_copies_and_tied_ones_stay_tied() -> None:
    model = nz.LanguageModel(7, 5, tie_weights=True)
    network = nz.export(model)
    assert network.embedding is not None and network.linear.weight is network.embedding.weight
    assert network.linear.weight is not model.embedding.weight
    own = {p.data_ptr() for p in model.parameters()}
    assert own.isdisjoint(p.data_ptr() for p in network.parameters())


class Half(Cell):
    def step(self, a: Tensor, p: Tensor, z: Tensor, c: Tensor | None) -> tuple[Tensor, None]:
        return (a + p) / 2, None


class Logistic(Emission):
    num_parameters = 2

    def forward(self, z: Tensor) -> dist.TorchDistribution:
        loc, log_scale = self.read_out(z).chunk(2, -1)
        return dist.Logistic(loc, log_scale.exp()).to_event(1)


def test_an_emission_of_ones_own_has_a_read_out_unless_values_are_scaled() -> None:
    rnn = make_rnn("gru").double()
    model, inputs = nz.SequenceModel(rnn, Logistic(rnn.hidden_size, 1).double()), make_inputs()
    close(nz.export(model)(inputs)[0][..., :1], nz.noise_off(model)(inputs).emission.mean)
    scaled = nz.SequenceModel(make_rnn("gru"), Scaled(Logistic(rnn.hidden_size, 1), [100.0], [20.0]))
    with pytest.raises(ValueError, match=r"read-out of the emission Logistic .* not known; use noise_off\(model\)"):
        nz.export(scaled)


def test_what_torch_has_no_layers_for_is_refused() -> None:
    model = nz.LanguageModel(7, 5, cell=Half())
    with pytest.raises(ValueError, match=r"torch has no layer for the cell 'half'; use noise_off\(model\)"):
        nz.export(model)
    with pytest.raises(ValueError, match="pass the model itself, not a view"):
        nz.export(nz.noise_off(nz.LanguageModel(7, 5)))  # type: ignore[arg-type]
