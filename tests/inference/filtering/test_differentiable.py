"""The gradient of log p̂, against autograd through the weights."""

from typing import Any

import pyro
import pytest
import torch
from torch import Tensor

from noisin_pyro import SequenceModel
from noisin_pyro.data import Batch
from noisin_pyro.inference.filtering.differentiable import differentiable_filter
from noisin_pyro.inference.filtering.particle_filter import FilterStep, Settings, filter_window
from noisin_pyro.models import EMISSIONS, scored_steps

from ...small_layers import make_rnn

BATCH, STEPS, PARTICLES, OUTPUTS = 3, 6, 4, 4


def make(emission: str) -> SequenceModel:
    return SequenceModel(make_rnn(cell="lstm", num_layers=2, spread=0.8), emission, OUTPUTS).double()


def make_batch(model: SequenceModel, gaps: bool) -> Batch:
    inputs = torch.randn(BATCH, STEPS, 2).double()
    targets = model(inputs).emission.sample()
    lengths = torch.tensor([STEPS, 4, 1]) if gaps else None
    return Batch(inputs, targets, lengths, False, torch.rand(BATCH, STEPS) < 0.6 if gaps else None)


def through_weights(model: SequenceModel, batch: Batch, settings: Settings, ancestor_term: bool) -> Tensor:
    """Σ log p̂ with weights that have gradients; in resampling, each carries its ancestor's, divided by its value."""
    steps: list[FilterStep] = []
    filter_window(model, batch, None, settings, visit=steps.append)
    scored = scored_steps(batch.lengths, batch.mask, STEPS)
    scored = torch.ones(BATCH, STEPS, dtype=torch.bool) if scored is None else scored
    has_target_ahead = scored.flip(1).cumsum(1).flip(1) > 0
    log_w = torch.zeros(PARTICLES, BATCH).double() - torch.tensor(PARTICLES).log()
    total = torch.zeros(()).double()
    for t, step in enumerate(steps):
        x_t = batch.targets[:, t : t + 1]
        log_p = model.emission(step.proposed.output.unsqueeze(-2)).log_prob(x_t).squeeze(-1)
        log_w = log_w + log_p.where(scored[:, t], 0.0)
        increment = log_w.logsumexp(0).where(has_target_ahead[:, t], 0.0)
        total, log_w = total + increment.sum(), log_w - increment
        if step.ancestors is not None:
            carried = (log_w - log_w.detach()).gather(0, step.ancestors[0]) if ancestor_term else 0.0 * log_w
            log_w = torch.where(step.resampled[0], carried - torch.tensor(PARTICLES).log(), log_w)
    return total


@pytest.mark.parametrize("ancestor_term", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("emission", EMISSIONS)
def test_gradient_is_that_through_the_weights(emission: str, gaps: bool, threshold: float, ancestor_term: bool):
    model = make(emission)
    batch, settings = make_batch(model, gaps), Settings(1, PARTICLES, threshold)
    values, gradients = [], []
    for filtered in (lambda *args: differentiable_filter(*args)[0].sum(), None):
        pyro.set_rng_seed(1)
        if filtered is None:
            value = through_weights(model, batch, settings, ancestor_term)
        else:
            value = filtered(model, batch, None, settings, ancestor_term)
        values.append(value)
        gradients.append(torch.autograd.grad(value, list(model.parameters())))
    torch.testing.assert_close(*values)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("emission", ["bernoulli", "categorical"])
def test_emission_is_differentiated_at_particles_with_descendants_only(emission: str, monkeypatch: pytest.MonkeyPatch):
    model, rows = make(emission), []
    batch, forward = make_batch(model, gaps=False), type(model.emission).forward

    def counting(self: Any, z: Tensor) -> Any:
        if torch.is_grad_enabled():
            rows.append(z.shape[:-1].numel())
        return forward(self, z)

    monkeypatch.setattr(type(model.emission), "forward", counting)
    for threshold in (0.0, 1.0):
        differentiable_filter(model, batch, None, Settings(1, PARTICLES, threshold), True)
    assert rows[0] == PARTICLES * BATCH * STEPS
    assert PARTICLES * BATCH <= rows[1] < 0.8 * rows[0]
