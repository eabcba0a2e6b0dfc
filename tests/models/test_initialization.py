"""The published paper's weights at the start."""

import math

import pytest
import torch

from noisin_pyro.models import LanguageModel, NoisyRNN, SequenceModel, Spread, initialize_as_published


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_each_kind_of_weight_has_its_range(cell: str, tied: bool) -> None:
    torch.manual_seed(0)
    spread = Spread(0.3, learn=True)
    model = LanguageModel(500, 64, num_layers=2, cell=cell, spread=spread, tie_weights=tied)
    gammas = model.rnn.spreads()
    initialize_as_published(model)
    ranges = {"embedding": 0.1, "emission": 0.1 if tied else 1 / 8, "rnn": 1 / 8}
    assert model.rnn.spreads() == gammas
    for name, parameter in model.named_parameters():
        if "bias" in name:
            assert not parameter.any(), name
        elif "weight" in name:
            bound = ranges[name.partition(".")[0]]
            # the largest of n >= 4096 uniform draws is below 0.99 of the bound with chance 0.99^4096 < 1e-17
            assert 0.99 * bound < parameter.abs().max() <= bound, name
            deviation = bound / math.sqrt(3)
            assert abs(parameter.mean()) < 5 * deviation / math.sqrt(parameter.numel()), name
    assert (model.emission.linear.weight is model.embedding.weight) == tied


def test_a_model_without_words_has_no_embedding_to_draw() -> None:
    model = SequenceModel(NoisyRNN(88, 64), "bernoulli", 88)
    initialize_as_published(model)
    assert not model.emission.linear.bias.any()
    assert 0.99 / 8 < model.emission.linear.weight.abs().max() <= 1 / 8
