"""The filtering bound and the particle filter with missing targets."""

import math
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro import SequenceModel, evaluate
from noisin_pyro.data import Sequences

from .shared import LENGTHS, ROWS, SCORED, STEPS, arrays, loss_and_gradient, make, score


class TestFilteringBound:
    """The particle filter as the objective, with missing targets, and guides as its proposals."""

    @staticmethod
    def loss(model: SequenceModel, *args: Tensor, guide: Any = None, **options: Any) -> tuple[Tensor, ...]:
        pyro.set_rng_seed(0)
        elbo = nz.PriorAsGuide_ELBO(8, bound="filtering", max_plate_nesting=1)
        value = elbo.differentiable_loss(model, guide, *args, **options)
        grads = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
        return value.detach(), *(grad for grad in grads if grad is not None)

    @pytest.mark.parametrize("emission", ["gaussian", "categorical"])
    @pytest.mark.parametrize("name", [None, "mean-field", "smoothing"])
    def test_a_mask_of_the_last_steps_equals_lengths_without_a_proposal(self, name, emission):
        model, (x, y) = make(emission, spread=nz.Spread(0.5, learn=True)), arrays()
        mask = torch.arange(5) < LENGTHS[:, None]
        guide = None if name is None else nz.guides.get(name, model)  # starts at the prior
        if emission == "categorical":
            y, missing = torch.ones(3, 5).long(), torch.where(mask, 1, 99)
        else:
            missing = y.where(mask[..., None], math.nan)
        if name is None:
            result, expected = self.loss(model, x, missing, mask=mask), self.loss(model, x, y, lengths=LENGTHS)
            torch.testing.assert_close(result, expected, rtol=1e-10, atol=1e-10)
        values = [self.loss(model, x, missing, guide=guide, mask=mask), self.loss(model, x, y, guide=guide, mask=mask)]
        assert all(part.isfinite().all() for part in values[0])
        torch.testing.assert_close(*values, rtol=0, atol=0)

    def test_gaps_without_noise_equal_the_elbo(self):
        model, (x, y) = make(spread=0.0), arrays()
        y = y.where(STEPS[..., None], math.nan)
        expected = loss_and_gradient(model, x, y, mask=STEPS, lengths=LENGTHS)
        torch.testing.assert_close(self.loss(model, x, y, mask=STEPS, lengths=LENGTHS), expected)

    @pytest.mark.parametrize("threshold", [0.0, 1.0])
    def test_proposals_are_unbiased_with_gaps(self, threshold, linear_gaussian, assert_mean):
        model, copies = linear_gaussian(hidden=1), 4000
        guide = nz.guides.get("smoothing", model)
        with torch.no_grad():
            for parameter in guide.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        x = torch.tensor([0.5, 9.0, 2.0, 1.5]).double().reshape(1, 4, 1)
        mask = torch.tensor([[True, False, True, True]])
        lag = torch.arange(4)[:, None] - torch.arange(4)
        powers = torch.where(lag >= 0, 0.9 ** lag.clamp(min=0).double(), 0.0)
        is_scored = mask[0]
        covariance = (powers @ powers.T + torch.eye(4))[is_scored][:, is_scored]
        exact = torch.distributions.MultivariateNormal(torch.zeros(3).double(), covariance).log_prob(x[0, is_scored, 0])
        data = Sequences(torch.zeros(copies, 4, 1).double(), x.expand(copies, -1, -1), mask=mask.expand(copies, -1))
        options = {"num_samples": 10, "islands": 1, "threshold": threshold, "guide": guide}
        result = evaluate(model, data, "particle-filter", log_probs=True, **options)
        assert_mean((result.totals - exact).exp(), 1.0)
        torch.testing.assert_close(result.log_probs.sum(1), result.totals)


def test_effective_sample_sizes_are_averages_over_scored_steps():
    model, (inputs, targets) = make(), arrays()
    guide = nz.guides.get("smoothing", model)
    for options in ({}, {"guide": guide}):
        result = score(model, Sequences(inputs, targets, LENGTHS, mask=STEPS), "particle-filter", **options)
        assert 1 <= result.effective_samples <= result.num_samples


def test_a_mask_by_step_around_the_filtering_bound_is_refused() -> None:
    inputs, targets = arrays()
    loss = nz.PriorAsGuide_ELBO(4, bound="filtering")
    with poutine.mask(mask=SCORED), pytest.raises(ValueError, match=r"must have shape \(3,\), got \(3, 5\)"):
        loss.loss(make(), None, inputs, targets)
    with poutine.mask(mask=ROWS):
        assert math.isfinite(loss.loss(make(), None, inputs, targets))
