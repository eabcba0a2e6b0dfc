"""Trained guides where log p(x) is known: their bounds in order, the gap closed, the estimates from them right.

``benchmarks/bounds.py`` does this at full length.
"""

import math
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

import noisin_pyro as nz

STEPS, BATCH, HELD_OUT = 10, 50, 300


@pytest.fixture(autouse=True)
def own_parameters() -> Any:
    with pyro.settings.context(module_local_params=True):
        pyro.set_rng_seed(0)
        yield


def draw(model: nz.SequenceModel, number: int) -> tuple[Tensor, Tensor]:
    inputs = torch.zeros(number, STEPS, 1).double()
    with torch.no_grad(), poutine.block():
        nodes: Any = poutine.trace(model).get_trace(inputs).nodes
    return inputs, nodes["x"]["value"]


def trained(model: nz.SequenceModel, name: str, steps: int) -> Callable[..., Any]:
    guide = nz.guides.get(name, model, covariance="full", hidden_size=16)
    bound = nz.PriorAsGuide_ELBO(max_plate_nesting=1)(nz.innovations(model), guide)
    optimizer = torch.optim.Adam(guide.parameters(), 0.02)  # pyright: ignore[reportFunctionMemberAccess]
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    with pyro.settings.context(validate_distributions_pyro=False, validate_distributions_torch=False):
        for _ in range(steps):
            optimizer.zero_grad()
            (bound(*draw(model, BATCH)) / (BATCH * STEPS)).backward()
            optimizer.step()
            schedule.step()
    return guide


@pytest.mark.slow
def test_bounds_at_their_optima(linear_gaussian, exact_log_likelihood):
    model = linear_gaussian()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    data = nz.data.Sequences(*draw(model, HELD_OUT))
    exact = -float(exact_log_likelihood(data.targets, 1.0).sum()) / data.num_steps
    guides = {"prior": None, "filtering": trained(model, "filtering", 200)}
    guides["smoothing"] = trained(model, "smoothing", 600)

    gaps, errors = {}, {}
    for name, guide in guides.items():
        options = {"method": "importance", "guide": guide, "num_samples": 1}
        draws = torch.tensor([nz.evaluate(nz.innovations(model), data, **options).nats_per_step for _ in range(30)])
        gaps[name], errors[name] = float(draws.double().mean()) - exact, float(draws.std()) / math.sqrt(30)
    assert gaps["prior"] - gaps["filtering"] > 5 * math.hypot(errors["prior"], errors["filtering"])
    assert gaps["filtering"] - gaps["smoothing"] > 5 * math.hypot(errors["filtering"], errors["smoothing"])
    assert -5 * errors["smoothing"] < gaps["smoothing"] < 0.01

    # the law of the difference, in errors, is about a standard normal's: |z| > 5 is a false alarm once in 2 million
    options = {"method": "importance", "guide": guides["smoothing"], "num_samples": 100}
    score = nz.evaluate(nz.innovations(model), data, **options)
    assert score.unreliable is not None and score.unreliable < 0.02
    assert score.nats_per_step == pytest.approx(exact, abs=5 * score.monte_carlo_error)
