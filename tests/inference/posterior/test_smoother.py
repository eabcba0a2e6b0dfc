"""The smoother: its draws are those of exact posteriors, and what it refuses."""

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

import noisin_pyro as nz
from noisin_pyro.data import Sequences

from .posteriors import drawn_from, look, make, some_data

FILTERS = 20


def z_over_filters(draws: Any, mean: Any, deviation: Any) -> np.ndarray:
    """z-scores of means and standard deviations of ``(chain, draw, ...)``, whose errors are those between filters."""
    values = np.asarray(draws)
    moments = [values.mean(1), np.sqrt(((values - np.asarray(mean)) ** 2).mean(1))]
    truths = [np.asarray(mean), np.asarray(deviation)]
    return np.stack(
        [(m.mean(0) - t) / (m.std(0, ddof=1) / len(m) ** 0.5) for m, t in zip(moments, truths, strict=True)]
    )


class TestExact:
    """False-alarm rate of each test, at a fixed seed: 4e-5 (Student's t with 19 degrees of freedom beyond 5.3)
    times the number of moments, a few dozen."""

    def check(self, linear_gaussian, exact_posterior, steps: int, particles: int, draws: int, every: int) -> None:
        pyro.set_rng_seed(3)
        model = linear_gaussian()
        data = drawn_from(model, 1, steps)
        mean, covariance = exact_posterior(data.targets, 1.0)
        deviation = covariance.diagonal().sqrt().unflatten(0, (steps, 2))
        result = look(
            model, data, method="smoother", num_samples=draws, num_chains=FILTERS, num_particles=particles
        ).posterior.z_1[:, :, 0, ::every]
        z = z_over_filters(result, mean[0, ::every], deviation[::every])
        assert np.abs(z).max() < 5.3, z

    def test_linear_gaussian(self, linear_gaussian, exact_posterior):
        self.check(linear_gaussian, exact_posterior, steps=10, particles=300, draws=50, every=1)

    @pytest.mark.slow
    def test_long_linear_gaussian(self, linear_gaussian, exact_posterior):
        self.check(linear_gaussian, exact_posterior, steps=100, particles=1000, draws=50, every=5)

    @pytest.mark.parametrize(
        "options",
        [
            {"cell": "gru", "layers": 2, "input_spread": 0.4},
            {"noise": "laplace"},
            {"noise": "gamma:native", "cell": "sigmoid"},
            {"noise": "gaussian:multiplicative", "cell": "sigmoid"},
        ],
        ids=str,
    )
    def test_agrees_with_importance_sampling(self, options):
        # 4,000 of 40,000 proposals are nearly exact for three steps; |z| > 5.5 with 19 degrees of freedom: 3e-5
        pyro.set_rng_seed(4)
        model, data = make(**options), some_data(batch=1, steps=3)
        exact = look(model, data, num_samples=4000, num_proposals=40_000).posterior
        result = look(model, data, method="smoother", num_samples=100, num_chains=FILTERS, num_particles=300).posterior
        for name in result:
            reference = exact[name].values[0]
            values = result[name].values.mean(1)
            error = np.sqrt(values.var(0, ddof=1) / FILTERS + reference.var(0) / 4000)
            assert (np.abs(values.mean(0) - reference.mean(0)) < 5.5 * error).all()

    def test_padding_changes_no_draw_of_real_steps(self, linear_gaussian, exact_posterior):
        pyro.set_rng_seed(5)
        model = linear_gaussian()
        data = drawn_from(model, 2, 6, torch.tensor([6, 3]))
        mean, covariance = exact_posterior(data.targets[1:, :3], 1.0)
        deviation = covariance.diagonal().sqrt().unflatten(0, (3, 2))
        result = look(model, data, method="smoother", num_samples=50, num_chains=FILTERS, num_particles=300)
        z_1 = result.posterior.z_1[:, :, 1]
        assert np.abs(z_over_filters(z_1[:, :, :3], mean[0], deviation)).max() < 5.3
        assert np.isnan(z_1[:, :, 3:]).all() and not np.isnan(result.posterior.z_1[:, :, 0]).any()
        effective = result.sample_stats.effective_particles
        assert effective.shape == (FILTERS, 2) and (effective > 1).all() and (effective < 300).all()

    def test_the_last_state_before_padding_is_drawn_given_its_target(self):
        """Independent z_t ~ N(0, 1) and x_t = z_t + N(0, 0.01): z_t is 1.98 ± 0.1, padded or not.

        Means of 500 draws of 500 particles each: 0.1 is far above their error, and far below the prior's distance.
        """
        pyro.set_rng_seed(0)
        model = nz.SequenceModel(nz.NoisyRNN(1, 1, cell="identity", spread=1.0), "gaussian", 1).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
            model.emission.linear.weight.fill_(1.0)
            model.emission.scale = torch.full((1,), 0.1).double()
        inputs, x = torch.zeros(2, 4, 1).double(), torch.full((2, 4, 1), 2.0).double()
        data = nz.data.Sequences(inputs, x, torch.tensor([4, 3]))
        draws = look(model, data, method="smoother", num_samples=500, num_chains=1, num_particles=500)
        z_1 = draws.posterior.z_1.values[0, :, :, :, 0]
        means, deviations = z_1.mean(0), z_1.std(0)
        assert np.abs(means[0] - 1.98).max() < 0.1 and np.abs(means[1, :3] - 1.98).max() < 0.1
        assert deviations[0].max() < 0.2 and deviations[1, :3].max() < 0.2


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"cell": "lstm"}, "does not support the lstm cell: its memory is deterministic"),
            ({"feedback": False}, "needs noise that feeds back in every layer"),
            ({"layers": 2, "spread": [0.4, 0.0]}, r"got feedback=True and noise in layers \[1\]"),
            ({"spread": 0.0, "input_spread": 0.4}, r"noise in layers \[0\]"),
            ({"noise": "bernoulli"}, "bernoulli noise is discrete"),
            ({"noise": "poisson:native", "cell": "sigmoid"}, "poisson:native noise is discrete"),
            ({"noise": "dirichlet"}, "the units of dirichlet noise sum to zero"),
            *[
                ({"noise": "gaussian:multiplicative", "cell": cell}, f"none around 0, which the {cell} cell can reach")
                for cell in ("tanh", "relu", "identity", "gru")
            ],
            ({"spread": nz.Spread(prior=dist.Gamma(2.0, 4.0))}, "needs fixed weights and γ"),
            ({"regularizer": nz.models.Dropout(output=0.5)}, "does not support dropout masks"),
        ],
        ids=str,
    )
    def test_models(self, options, message):
        with pytest.raises(ValueError, match=message):
            look(make(**options), some_data(), method="smoother", num_particles=10)

    def test_views_and_options(self):
        model, data = make(), some_data()
        with pytest.raises(ValueError, match="pass it without a view"):
            look(nz.innovations(model), data, method="smoother")
        with pytest.raises(ValueError, match="num_particles must be a positive integer, got 0"):
            look(model, data, method="smoother", num_particles=0)
        with pytest.raises(ValueError, match="thin has no effect on method='smoother'"):
            look(model, data, method="smoother", thin=2)

    def test_layers_whose_weights_are_all_sampled(self):
        model = make()
        for name, weight in list(model.rnn.named_parameters()):
            prior = dist.Normal(torch.zeros_like(weight), 1.0).to_event(weight.dim())
            setattr(model.rnn, name, pyro.nn.PyroSample(prior))
        with pytest.raises(ValueError, match=r"needs fixed weights and γ, but 'rnn\.weight_ih_l0' is sampled"):
            look(model, some_data(), method="smoother", num_particles=10)

    def test_stored_particles_are_memory(self):
        model, data = make(), some_data(steps=50)
        with pytest.raises(
            ValueError, match=r"max_memory: 8 draws take .* than 2 MB; use fewer particles \(about num_pa"
        ):
            look(model, data, method="smoother", num_samples=2, num_particles=5000, max_memory=2_000_000)
        look(model, data, method="smoother", num_samples=2, num_particles=50, max_memory=2_000_000)

    def test_conditioned_spread(self):
        prior = nz.Spread(prior=dist.Gamma(2.0, 4.0))
        model, data = make(spread=prior), some_data()
        given = pyro.condition(model, {"rnn.spread_1.gamma": torch.tensor(0.4).double()})
        result = look(given, Sequences(data.inputs, data.targets), method="smoother", num_samples=3, num_particles=10)
        assert result.posterior.z_1.shape == (4, 3, 3, 4, 2)
