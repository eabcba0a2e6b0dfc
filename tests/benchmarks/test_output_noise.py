"""Output noise: the penalty and the added loss agree for small γ, and part for large ones."""

from typing import Any

import pyro
import pytest
import torch

import noisin_pyro as nz
from noisin_pyro.training.run import program_settings


def test_the_added_loss_approaches_the_penalty(output_noise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At γ = 0.1 they agree within 4 standard errors, a false alarm in 16,000, and 5 % for the higher orders."""
    monkeypatch.setattr(output_noise, "SPREADS", (0.1, 1.5))
    with program_settings():
        pyro.set_rng_seed(0)
        model = nz.LanguageModel(7, 5, noise=output_noise.NOISE, spread=0.5, feedback=False)
        with torch.no_grad():
            model.emission.linear.weight.mul_(4)
        data = nz.data.Stream(torch.randint(7, (600,)), 10, 20)
        small, large = output_noise.measure(model, data, samples=60)
    assert small["penalty"] > 0
    assert abs(small["added_loss"] - small["penalty"]) < 4 * small["standard_error"] + 0.05 * small["penalty"]
    assert large["penalty"] == pytest.approx(225 * small["penalty"], rel=1e-4)  # quadratic in γ
    assert large["added_loss"] > 0


def test_without_noise_the_loss_is_that_of_the_network(output_noise: Any) -> None:
    with program_settings():
        model = nz.LanguageModel(7, 5, noise=output_noise.NOISE, spread=0.5, feedback=False)
        data = nz.data.Stream(torch.randint(7, (60,)), 2, 10)
        quiet = output_noise.with_spread(model, 0.0)
        expected = nz.evaluate(model, data, "mean").nats_per_step
        assert float(output_noise.mean_loss(quiet, data, 1)) == pytest.approx(expected, rel=1e-5)
