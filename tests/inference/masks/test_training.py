"""Losses and gradients with missing targets."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro import NoisyRNN, SequenceModel, evaluate
from noisin_pyro.data import Sequences

from .shared import LENGTHS, ROWS, STEPS, arrays, loss_and_gradient, make


class TestTraining:
    """The bound with missing targets: value and gradient are those of the data without them."""

    @pytest.mark.parametrize("bound", ["elbo", "importance"])
    @pytest.mark.parametrize("emission", ["gaussian", "bernoulli", "poisson", "categorical"])
    def test_value_and_gradient_equal_those_of_dropped_data(self, emission, bound):
        model, (x, _) = make(emission, spread=0.0), arrays()
        mask = ROWS[:, None] & (torch.arange(5) < 3)
        y = torch.ones(3, 5).long()
        if emission != "categorical":
            y = torch.tensor([0.0, 1.0]).double().expand(3, 5, 2).where(mask[..., None], math.nan)
        result = loss_and_gradient(model, x, y, bound=bound, mask=mask)
        expected = loss_and_gradient(model, x[ROWS, :3], y[ROWS, :3], bound=bound)
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("bound", ["elbo", "importance"])
    @pytest.mark.parametrize("cell", ["tanh", "lstm"])
    def test_a_mask_of_the_last_steps_equals_lengths(self, cell, bound):
        model, (x, y) = make(cell=cell, spread=nz.Spread(0.5, learn=True), num_layers=2), arrays()
        mask = torch.arange(5) < LENGTHS[:, None]
        result = loss_and_gradient(model, x, y.where(mask[..., None], math.nan), bound=bound, mask=mask)
        expected = loss_and_gradient(model, x, y, bound=bound, lengths=LENGTHS)
        torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("name", ["mean-field", "filtering", "smoothing"])
    def test_guides_ignore_missing_targets(self, name):
        model, (x, y) = make(), arrays()
        guide = nz.guides.get(name, model)
        with torch.no_grad():
            for parameter in guide.parameters():
                parameter.add_(0.1)
        bound, result = nz.PriorAsGuide_ELBO(2, max_plate_nesting=1)(model, guide), []
        for value in (math.nan, 0.0, 7.0):
            pyro.set_rng_seed(0)
            bound.zero_grad()
            loss = bound(x, y.where(STEPS[..., None], value), mask=STEPS, lengths=LENGTHS)
            loss.backward()
            result.append([loss.detach(), *(p.grad.clone() for p in bound.parameters() if p.grad is not None)])
        assert all(part.isfinite().all() for part in result[0])
        for other in result[1:]:
            assert all(torch.equal(one, two) for one, two in zip(result[0], other, strict=True))

    def test_masks_of_another_shape_are_refused(self):
        model, (x, y) = make(), arrays()
        for guide in (None, nz.guides.get("smoothing", model)):
            for mask in (STEPS[:, :4], STEPS.T, STEPS.double()):
                with pytest.raises(ValueError, match=r"mask must be booleans of shape \(\.\.\., 3, 5\), got"):
                    nz.PriorAsGuide_ELBO()(model, guide)(x, y, mask=mask)

    def test_an_emission_of_bounded_support_has_finite_gradients(self):
        class LogNormal(nz.models.Emission):
            def forward(self, z: Tensor) -> Any:
                return dist.LogNormal(self.read_out(z), 1.0).to_event(1)

        model, (x, y) = SequenceModel(NoisyRNN(2, 3), LogNormal(3, 2)).double(), arrays()
        y = y.exp().where(STEPS[..., None], math.nan)
        assert all(part.isfinite().all() for part in loss_and_gradient(model, x, y, mask=STEPS))
        assert math.isfinite(evaluate(model, Sequences(x, y, mask=STEPS), "particle-filter").nats_per_step)


@pytest.mark.parametrize("bound", ["elbo", "importance", "filtering"])
@pytest.mark.parametrize("guide", [None, "mean-field", "smoothing"])
@pytest.mark.parametrize("value", [math.nan, -1.0])
def test_padding_of_any_value_has_no_effect_on_loss_and_gradients(bound: Any, guide: str | None, value: float) -> None:
    inputs, lengths = torch.randn(3, 4, 2), torch.tensor([2, 4, 4])
    model = nz.SequenceModel(nz.models.NoisyRNN(2, 3), "bernoulli", 2)
    parts = [model] if guide is None else [model, nz.guides.get(guide, model)]
    results = []
    for padding in (0.0, value):
        targets = torch.ones(3, 4, 2)
        targets[0, 2:] = padding
        pyro.set_rng_seed(0)
        for part in parts:
            part.zero_grad()
        loss = nz.PriorAsGuide_ELBO(4, bound=bound)(*parts)(inputs, targets, lengths=lengths)
        loss.backward()
        grads = [p.grad.flatten() for part in parts for p in part.parameters() if p.grad is not None]
        results.append(torch.cat([loss.detach().reshape(1), *grads]))
    torch.testing.assert_close(*results)
    data = [nz.data.Sequences(inputs, each, lengths) for each in (targets, targets.nan_to_num(1.0).abs())]
    means = [nz.evaluate(model, each, method="mean").nats_per_step for each in data]
    assert means[0] == means[1]
