"""The benchmarks of the filtering bound, at small sizes."""

import math
from typing import Any

import pytest
import torch

from noisin_pyro.training.run import program_settings


def test_both_steps_give_every_weight_a_gradient(filtering_step: Any) -> None:
    for words in (0, 11):
        shape = filtering_step.Shape("tanh", 5, 3, batch=2, steps=4, words=words)
        for step in filtering_step.contestants(shape).values():
            model = step.args[0].model
            step()
            assert all(p.grad.abs().sum() > 0 for p in model.parameters())


def test_parts_are_numbers(filtering_bound: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(filtering_bound, "SEQUENCES", 3)
    with program_settings():
        for proposal in ("prior", "exact conditional", "trained smoothing guide"):
            options = filtering_bound.Learning(4, proposal, 8, 0.5, True, 0.1, gradient_steps=2)
            result = filtering_bound.learn(options, 0)
            assert 0 < result["ratio"] < 2 and isinstance(result["met"], bool)
        assert 0 < filtering_bound.gap(4, 8, 0)["nats_per_sequence"] < 5
        assert all(map(math.isfinite, filtering_bound.score(0, groups=3, size=5).values()))
