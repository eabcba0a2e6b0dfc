"""Posteriors against exact ones: the Kalman smoother, a grid of γ, and enumeration."""

from typing import Any

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch import Tensor

import noisin_pyro as nz

from .posteriors import LIMIT, drawn_from, look, make, some_data, z_scores


@pytest.fixture(autouse=True)
def own_parameters() -> Any:
    with pyro.settings.context(module_local_params=True):
        yield


def exact_guide(smoothed: Any, spread: float = 1.0) -> Any:
    """The posterior itself of the linear-Gaussian model's noise, as a guide."""

    def guide(inputs: Tensor, targets: Tensor, lengths: Any = None) -> None:
        mean, covariance = smoothed(targets, spread)
        steps, hidden = mean.shape[1:]
        innovate = (torch.eye(steps) - 0.9 * torch.diag(torch.ones(steps - 1), -1)).double() / spread
        innovate = torch.kron(innovate, torch.eye(hidden).double())
        law = dist.MultivariateNormal(mean.flatten(1) @ innovate.T, innovate @ covariance @ innovate.T)
        with pyro.plate("sequences", len(inputs), dim=-1):
            flat = pyro.sample("flat", law, infer={"is_auxiliary": True})
            pyro.sample("z_1_noise", dist.Delta(flat.unflatten(-1, (steps, hidden)), event_dim=2))

    return guide


class TestKalmanSmoother:
    def test_prior_reweighted(self, linear_gaussian, exact_posterior):
        model = linear_gaussian()
        data = drawn_from(model, batch=3, steps=2)
        result = look(model, data, num_samples=4000, num_proposals=100_000)
        assert (result.sample_stats.pareto_k < 0.7).all()
        mean, covariance = exact_posterior(data.targets, 1.0)
        worth = 1 / (1 / 4000 + 1 / result.sample_stats.effective_proposals.values)
        deviation = covariance.diagonal().sqrt().unflatten(0, (2, 2)).expand_as(mean)
        assert abs(z_scores(result.posterior.z_1, mean, deviation, worth[:, None, None])).max() < LIMIT

    def test_padded_steps_are_left_out(self, linear_gaussian, exact_posterior):
        model = linear_gaussian()
        data = drawn_from(model, batch=2, steps=2, lengths=torch.tensor([2, 1]))
        result = look(nz.innovations(model), data, num_samples=4000, num_proposals=50_000)
        mean, covariance = exact_posterior(data.targets[1:, :1], 1.0)
        one = result.posterior.z_1.sel(sequence=1, time=1)
        worth = 1 / (1 / 4000 + 1 / float(result.sample_stats.effective_proposals[1]))
        assert abs(z_scores(one, mean[0, 0], covariance.diagonal().sqrt(), worth)).max() < LIMIT

    def test_exact_guide(self, linear_gaussian, exact_posterior):
        model = linear_gaussian()
        data = drawn_from(model, batch=3, steps=6)
        result = look(nz.innovations(model), data, exact_guide(exact_posterior), num_samples=4000)
        assert result.attrs["method"] == "guide, as drawn"
        # every weight is p(x)
        assert (result.sample_stats.pareto_k == -np.inf).all()
        assert result.sample_stats.effective_proposals.values == pytest.approx(4000)
        mean, covariance = exact_posterior(data.targets, 1.0)
        deviation = covariance.diagonal().sqrt().unflatten(0, (6, 2)).expand_as(mean)
        assert abs(z_scores(result.posterior.z_1, mean, deviation, 4000)).max() < LIMIT

    @pytest.mark.slow
    def test_trained_guide_resampled(self, linear_gaussian, exact_posterior):
        model = linear_gaussian()
        data = drawn_from(model, batch=3, steps=4)
        guide = nz.guides.get("smoothing", model, covariance="full")
        bound = nz.PriorAsGuide_ELBO(20)(nz.innovations(model), guide)
        optimizer = torch.optim.Adam(guide.parameters(), 0.02)
        for _ in range(150):
            optimizer.zero_grad()
            bound(data.inputs, data.targets).backward()
            optimizer.step()
        result = look(nz.innovations(model), data, guide, num_samples=4000, num_proposals=20_000)
        assert result.attrs["method"] == "guide, resampled by importance"
        assert (result.sample_stats.pareto_k < 0.7).all()
        mean, covariance = exact_posterior(data.targets, 1.0)
        worth = 1 / (1 / 4000 + 1 / result.sample_stats.effective_proposals.values)
        deviation = covariance.diagonal().sqrt().unflatten(0, (4, 2)).expand_as(mean)
        assert abs(z_scores(result.posterior.z_1, mean, deviation, worth[:, None, None])).max() < LIMIT

    @pytest.mark.slow
    def test_the_energy_of_nuts_is_potential_plus_kinetic(self, linear_gaussian):
        """Momenta are independent of all else: their energy is Gamma(d / 2), of mean and variance d / 2."""
        model = linear_gaussian()
        data = drawn_from(model, batch=1, steps=1)
        result = look(model, data, num_samples=80, method="nuts", num_chains=2, warmup_steps=15)
        z = torch.from_numpy(result.posterior.z_1.values)
        conditioned = poutine.condition(model, {"z_1": z.flatten(0, 1)})
        with torch.no_grad(), pyro.plate("draws", 160, dim=-2):
            trace = poutine.trace(conditioned).get_trace(data.inputs, data.targets)
        trace.compute_log_prob()
        potential = -(trace.nodes["z_1"]["log_prob"] + trace.nodes["x"]["log_prob"]).detach().reshape(2, 80).numpy()
        kinetic = result.sample_stats.energy.values[:, 1:] - potential[:, :-1]
        assert (kinetic > 0).all()
        assert abs(kinetic.mean() - 1.0) < LIMIT / kinetic.size**0.5

    @pytest.mark.slow
    def test_nuts(self, linear_gaussian, exact_posterior):
        model = linear_gaussian()
        data = drawn_from(model, batch=1, steps=2)
        result = look(model, data, num_samples=500, method="nuts", num_chains=2, warmup_steps=100)
        assert result.posterior.z_1.shape == (2, 500, 1, 2, 2)
        assert not result.sample_stats.diverging.any()
        assert float(arviz.rhat(result).z_1.max()) < 1.01
        mean, covariance = exact_posterior(data.targets, 1.0)
        deviation = covariance.diagonal().sqrt().unflatten(0, (2, 2)).expand_as(mean)
        of_mean = z_scores(result.posterior.z_1, mean, deviation, arviz.ess(result, method="mean").z_1)[0]
        of_deviation = z_scores(result.posterior.z_1, mean, deviation, arviz.ess(result, method="sd").z_1)[1]
        assert max(abs(of_mean).max(), abs(of_deviation).max()) < LIMIT


class TestSpreadWithPrior:
    PRIOR = dist.Gamma(2.0, 2.0)

    def test_posterior_agrees_with_a_grid(self, linear_gaussian, exact_log_likelihood):
        model = linear_gaussian(hidden=1, spread=nz.Spread(prior=self.PRIOR))
        data = drawn_from(linear_gaussian(hidden=1), batch=3, steps=1)
        result = look(model, data, num_samples=3000, num_proposals=100_000, num_particles=0)
        assert result.sample_stats.pareto_k < 0.7 and result.sample_stats.pareto_k.shape == ()
        assert list(result.log_likelihood) == ["x"]
        grid = torch.linspace(0.005, 12.0, 2400).double()
        log_p = torch.stack([exact_log_likelihood(data.targets, g, 1).sum() for g in grid]) + self.PRIOR.log_prob(grid)
        weights = log_p.softmax(0)
        mean = (weights * grid).sum()
        deviation = (weights * (grid - mean) ** 2).sum().sqrt()
        worth = 1 / (1 / 3000 + 1 / float(result.sample_stats.effective_proposals))
        error = float(deviation) / worth**0.5
        assert abs(float(result.posterior.gamma_1.mean()) - float(mean)) < LIMIT * error
        # the group ``prior`` has the moments of the prior: mean 1, variance 1/2
        assert abs(float(result.prior.gamma_1.mean()) - 1.0) < LIMIT * (0.5 / 3000) ** 0.5
        assert result.posterior.gamma_1.dims == ("chain", "draw")

    def test_marginal_likelihoods_are_exact(self, linear_gaussian, exact_log_likelihood):
        model = linear_gaussian(spread=nz.Spread(prior=dist.Uniform(0.3, 0.6)))
        data = drawn_from(linear_gaussian(), batch=2, steps=3, lengths=torch.tensor([3, 2]))
        result = look(model, data, num_samples=40, num_proposals=10_000, num_particles=1000)
        gammas = result.posterior.gamma_1.values[0]
        exact = torch.stack(
            [
                torch.cat([exact_log_likelihood(data.targets[:1], g), exact_log_likelihood(data.targets[1:, :2], g)])
                for g in gammas
            ]
        )
        errors = result.log_likelihood.x_marginal.values[0] - exact.numpy()
        assert result.log_likelihood.x_marginal.dims == ("chain", "draw", "sequence")
        # with γ below 0.6 the weights of a step vary by less than their mean: 1000 particles, 3 steps, an error of 0.06
        assert abs(errors).max() < 0.06 * LIMIT
        assert abs(errors.mean()) < 0.03


def test_posterior_of_bernoulli_noise_agrees_with_enumeration():
    # additive bernoulli noise has finitely many paths: their posterior chances, by enumeration
    model, data = make(noise="bernoulli"), some_data(batch=1, steps=2)
    with pytest.warns(UserWarning, match="up to inf"):  # 16 distinct weights have no tail to fit
        result = look(nz.innovations(model), data, num_samples=5000, num_proposals=50_000)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 4).reshape(16, 1, 2, 2)
    with pyro.plate("paths", 16, dim=-2), torch.no_grad():
        conditioned = poutine.condition(nz.innovations(model), {"z_1_noise": signs})
        trace = poutine.trace(conditioned).get_trace(data.inputs, data.targets)
    chances = trace.nodes["x"]["fn"].log_prob(data.targets).squeeze(-1).softmax(0)
    paths = trace.nodes["z_1"]["value"].reshape(16, 4)
    drawn = torch.from_numpy(result.posterior.z_1.values).reshape(-1, 4)
    which = torch.cdist(drawn, paths).argmin(1)
    assert torch.equal(torch.cdist(drawn, paths).amin(1) < 1e-6, torch.ones(5000, dtype=torch.bool))
    shares = torch.bincount(which, minlength=16) / 5000
    worth = 1 / (1 / 5000 + 1 / float(result.sample_stats.effective_proposals[0]))
    z = (shares - chances) / (chances * (1 - chances) / worth).sqrt()
    assert z.abs().max() < LIMIT
