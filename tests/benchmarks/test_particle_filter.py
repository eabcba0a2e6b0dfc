"""The forward passes that the particle filter is compared with, and the benchmark's report."""

from typing import Any

import pytest
import torch

from noisin_pyro import NoisyRNN, SequenceModel
from noisin_pyro.data import Batch


@pytest.fixture
def batch(particle_filter: Any, monkeypatch: pytest.MonkeyPatch) -> Batch:
    """Data of a reduced size, to which the benchmark is set."""
    sizes = {"KEYS": 5, "UNITS": 4, "STEPS": 6, "SEQUENCES": 3, "PARTICLES": 7}
    for name, value in sizes.items():
        monkeypatch.setattr(particle_filter, name, value)
    chords = torch.bernoulli(torch.full((2, 3, 6, 5), 0.3))
    return Batch(chords[0], chords[1], None, carried=False)


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_both_forward_passes_compute_the_same(particle_filter: Any, batch: Batch, cell: str) -> None:
    model = SequenceModel(NoisyRNN(5, 4, cell=cell, spread=0.3), "bernoulli", 5)
    log_probs = []
    for at_once in (True, False):
        torch.manual_seed(0)
        log_probs.append(particle_filter.forward(model, batch, at_once))
    assert log_probs[0].shape == (7, 3, 6)
    torch.testing.assert_close(*log_probs)


@pytest.mark.slow
def test_ratios_are_to_both_forward_passes(particle_filter: Any, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(particle_filter.time_in_turns.__globals__, "MAX_CALLS", 1)
    result = particle_filter.measure("tanh", batch, rounds=2)
    assert result["ratio to"].keys() == {"forward", "forward, step by step"}
    assert all(ratio["low"] <= ratio["median"] <= ratio["high"] for ratio in result["ratio to"].values())
    assert 1 <= result["effective_samples"] <= 7
