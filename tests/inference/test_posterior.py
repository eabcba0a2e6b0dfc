"""Posteriors against truths: the Kalman smoother, a grid of γ, sums over all signs, and the model's own laws."""

import importlib
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
from noisin_pyro.data import Sequences, Stream
from noisin_pyro.models import NoisyRNN, SequenceModel

LIMIT = 5.0  # of a z-score: passed by chance in 6 of 10 million


@pytest.fixture(autouse=True)
def own_parameters() -> Any:
    with pyro.settings.context(module_local_params=True):
        yield


def look(model: Any, data: Any, *args: Any, **options: Any) -> Any:
    return nz.posterior(model, data, *args, **{"seed": 1, "progress": False, **options})


def make(cell: str = "tanh", noise: str = "gaussian", layers: int = 1, emission: str = "bernoulli", **options: Any):
    rnn = NoisyRNN(3, 2, layers, cell=cell, noise=noise, **{"spread": 0.4, **options})
    return SequenceModel(rnn, emission, 4).double()


def some_data(emission: str = "bernoulli", batch: int = 3, steps: int = 4, lengths: Any = None) -> Sequences:
    x = torch.bernoulli(torch.full((batch, steps, 4), 0.5)).double()
    if emission == "categorical":
        x = torch.randint(4, (batch, steps))
    return Sequences(torch.randn(batch, steps, 3).double(), x, lengths)


def drawn_from(model: SequenceModel, batch: int, steps: int, lengths: Any = None) -> Sequences:
    inputs = torch.zeros(batch, steps, 1).double()
    with torch.no_grad(), poutine.block():
        x = poutine.trace(model).get_trace(inputs).nodes["x"]["value"]
    return Sequences(inputs, x, lengths)


def z_scores(found: Any, mean: Tensor, deviation: Tensor, draws: Any) -> np.ndarray:
    """Of the draws' means and standard deviations, if they are worth so many independent ones of a Gaussian."""
    m, s, n = mean.numpy(), deviation.numpy(), np.asarray(draws)
    of_mean = (found.mean(("chain", "draw")).values - m) / (s / n**0.5)
    of_deviation = (found.std(("chain", "draw")).values - s) / (s / (2 * n) ** 0.5)
    return np.stack([of_mean, of_deviation])


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
        found = look(model, data, num_samples=4000, num_proposals=100_000)
        assert (found.sample_stats.pareto_k < 0.7).all()
        mean, covariance = exact_posterior(data.targets, 1.0)
        worth = 1 / (1 / 4000 + 1 / found.sample_stats.effective_proposals.values)
        deviation = covariance.diagonal().sqrt().unflatten(0, (2, 2)).expand_as(mean)
        assert abs(z_scores(found.posterior.z_1, mean, deviation, worth[:, None, None])).max() < LIMIT

    def test_padded_steps_are_left_out(self, linear_gaussian, exact_posterior):
        model = linear_gaussian()
        data = drawn_from(model, batch=2, steps=2, lengths=torch.tensor([2, 1]))
        found = look(nz.innovations(model), data, num_samples=4000, num_proposals=50_000)
        mean, covariance = exact_posterior(data.targets[1:, :1], 1.0)
        one = found.posterior.z_1.sel(sequence=1, time=1)
        worth = 1 / (1 / 4000 + 1 / float(found.sample_stats.effective_proposals[1]))
        assert abs(z_scores(one, mean[0, 0], covariance.diagonal().sqrt(), worth)).max() < LIMIT

    def test_exact_guide(self, linear_gaussian, exact_posterior):
        model = linear_gaussian()
        data = drawn_from(model, batch=3, steps=6)
        found = look(nz.innovations(model), data, exact_guide(exact_posterior), num_samples=4000)
        assert found.attrs["method"] == "guide, as drawn"
        # every weight is p(x)
        assert (found.sample_stats.pareto_k == -np.inf).all()
        assert found.sample_stats.effective_proposals.values == pytest.approx(4000)
        mean, covariance = exact_posterior(data.targets, 1.0)
        deviation = covariance.diagonal().sqrt().unflatten(0, (6, 2)).expand_as(mean)
        assert abs(z_scores(found.posterior.z_1, mean, deviation, 4000)).max() < LIMIT

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
        found = look(nz.innovations(model), data, guide, num_samples=4000, num_proposals=20_000)
        assert found.attrs["method"] == "guide, resampled by importance"
        assert (found.sample_stats.pareto_k < 0.7).all()
        mean, covariance = exact_posterior(data.targets, 1.0)
        worth = 1 / (1 / 4000 + 1 / found.sample_stats.effective_proposals.values)
        deviation = covariance.diagonal().sqrt().unflatten(0, (4, 2)).expand_as(mean)
        assert abs(z_scores(found.posterior.z_1, mean, deviation, worth[:, None, None])).max() < LIMIT

    def test_nuts(self, linear_gaussian, exact_posterior):
        model = linear_gaussian()
        data = drawn_from(model, batch=1, steps=2)
        found = look(model, data, num_samples=500, method="nuts", num_chains=2, warmup_steps=100)
        assert found.posterior.z_1.shape == (2, 500, 1, 2, 2)
        assert not found.sample_stats.diverging.any()
        assert float(arviz.rhat(found).z_1.max()) < 1.01
        mean, covariance = exact_posterior(data.targets, 1.0)
        deviation = covariance.diagonal().sqrt().unflatten(0, (2, 2)).expand_as(mean)
        of_mean = z_scores(found.posterior.z_1, mean, deviation, arviz.ess(found, method="mean").z_1)[0]
        of_deviation = z_scores(found.posterior.z_1, mean, deviation, arviz.ess(found, method="sd").z_1)[1]
        assert max(abs(of_mean).max(), abs(of_deviation).max()) < LIMIT


class TestSpreadWithPrior:
    PRIOR = dist.Gamma(2.0, 2.0)

    def test_posterior_is_the_grid_s(self, linear_gaussian, exact_log_likelihood):
        model = linear_gaussian(hidden=1, spread=nz.Spread(prior=self.PRIOR))
        data = drawn_from(linear_gaussian(hidden=1), batch=3, steps=1)
        found = look(model, data, num_samples=3000, num_proposals=100_000, num_particles=0)
        assert found.sample_stats.pareto_k < 0.7 and found.sample_stats.pareto_k.shape == ()
        assert list(found.log_likelihood) == ["x"]
        grid = torch.linspace(0.005, 12.0, 2400).double()
        log_p = torch.stack([exact_log_likelihood(data.targets, g, 1).sum() for g in grid]) + self.PRIOR.log_prob(grid)
        weights = log_p.softmax(0)
        mean = (weights * grid).sum()
        deviation = (weights * (grid - mean) ** 2).sum().sqrt()
        worth = 1 / (1 / 3000 + 1 / float(found.sample_stats.effective_proposals))
        error = float(deviation) / worth**0.5
        assert abs(float(found.posterior.gamma_1.mean()) - float(mean)) < LIMIT * error
        # and the prior is the prior: mean 1, variance 1/2
        assert abs(float(found.prior.gamma_1.mean()) - 1.0) < LIMIT * (0.5 / 3000) ** 0.5
        assert found.posterior.gamma_1.dims == ("chain", "draw")

    def test_marginal_likelihoods_are_the_exact_ones(self, linear_gaussian, exact_log_likelihood):
        model = linear_gaussian(spread=nz.Spread(prior=dist.Uniform(0.3, 0.6)))
        data = drawn_from(linear_gaussian(), batch=2, steps=3, lengths=torch.tensor([3, 2]))
        found = look(model, data, num_samples=40, num_proposals=10_000, num_particles=1000)
        gammas = found.posterior.gamma_1.values[0]
        exact = torch.stack(
            [
                torch.cat([exact_log_likelihood(data.targets[:1], g), exact_log_likelihood(data.targets[1:, :2], g)])
                for g in gammas
            ]
        )
        errors = found.log_likelihood.x_marginal.values[0] - exact.numpy()
        assert found.log_likelihood.x_marginal.dims == ("chain", "draw", "sequence")
        # with γ below 0.6 the weights of a step vary by less than their mean: 1000 particles, 3 steps, an error of 0.06
        assert abs(errors).max() < 0.06 * LIMIT
        assert abs(errors.mean()) < 0.03


def test_signs_are_summed_over():
    # additive bernoulli noise has finitely many paths: their posterior chances, by enumeration
    model, data = make(noise="bernoulli"), some_data(batch=1, steps=2)
    with pytest.warns(UserWarning, match="up to inf"):  # 16 different weights have no tail to judge by
        found = look(nz.innovations(model), data, num_samples=5000, num_proposals=50_000)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 4).reshape(16, 1, 2, 2)
    with pyro.plate("paths", 16, dim=-2), torch.no_grad():
        held = poutine.condition(nz.innovations(model), {"z_1_noise": signs})
        trace = poutine.trace(held).get_trace(data.inputs, data.targets)
    chances = trace.nodes["x"]["fn"].log_prob(data.targets).squeeze(-1).softmax(0)
    paths = trace.nodes["z_1"]["value"].reshape(16, 4)
    drawn = torch.from_numpy(found.posterior.z_1.values).reshape(-1, 4)
    which = torch.cdist(drawn, paths).argmin(1)
    assert torch.equal(torch.cdist(drawn, paths).amin(1) < 1e-6, torch.ones(5000, dtype=torch.bool))
    shares = torch.bincount(which, minlength=16) / 5000
    worth = 1 / (1 / 5000 + 1 / float(found.sample_stats.effective_proposals[0]))
    z = (shares - chances) / (chances * (1 - chances) / worth).sqrt()
    assert z.abs().max() < LIMIT


class TestGroups:
    def test_names_dimensions_and_coordinates(self):
        gamma = nz.Spread(prior=dist.Uniform(0.1, 0.2))
        model = make(layers=2, cell="lstm", input_spread=0.2, spread=[0.3, gamma])
        found = look(model, some_data(), num_samples=20, num_proposals=20_000, num_particles=8)
        for group in (found.posterior, found.prior):
            assert set(group) == {"z_0", "z_1", "z_2", "gamma_2"}
            assert group.z_2.dims == ("chain", "draw", "sequence", "time", "unit_2")
            assert dict(group.z_0.sizes) == {"chain": 1, "draw": 20, "sequence": 3, "time": 4, "unit_0": 3}
        assert found.posterior.time.values.tolist() == [1, 2, 3, 4]
        assert found.posterior.unit_1.values.tolist() == [0, 1]
        assert found.posterior_predictive.x.dims == ("chain", "draw", "sequence", "time", "feature")
        assert found.log_likelihood.x.dims == ("chain", "draw", "sequence", "time")
        assert found.observed_data.x.dims == ("sequence", "time", "feature")
        attrs = found.attrs
        assert attrs["noise"] == "gaussian:additive" and attrs["cell"] == "lstm" and attrs["seed"] == 1
        assert attrs["gamma_1"] == pytest.approx(0.3) and "Uniform" in attrs["gamma_2"]
        assert attrs["arviz_version"] == arviz.__version__ and attrs["num_proposals"] == 20_000

    def test_sampled_weights_of_a_network_without_noise(self):
        # no hidden state is left to sum over: log p(x | W) is the sum of its steps'
        model = SequenceModel(NoisyRNN(3, 2, spread=0.0), "categorical", 4, weight_prior="normal")
        data = some_data("categorical", lengths=torch.tensor([4, 1, 3]))
        data = data.to("cpu", torch.float32)
        found = look(model, data, num_samples=30)
        assert set(found.posterior) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}
        assert found.posterior["rnn.weight_ih_l0"].shape == (1, 30, 2, 3)
        likelihood = found.log_likelihood
        np.testing.assert_allclose(likelihood.x_marginal, likelihood.x.sum("time"), rtol=1e-5)
        # proposals are worth different weights, and those drawn are likelier than the prior's on the whole
        assert found.sample_stats.pareto_k < 0.7

    def test_log_likelihood_and_predictions_are_those_of_the_draws(self, linear_gaussian, assert_mean):
        model = linear_gaussian()
        data = drawn_from(model, batch=2, steps=2)
        found = look(model, data, num_samples=3000, num_proposals=30_000)
        z = torch.from_numpy(found.posterior.z_1.values)
        mean = z @ model.emission.linear.weight.detach().T
        expected = dist.Normal(mean, 1.0).to_event(1).log_prob(data.targets)
        np.testing.assert_allclose(found.log_likelihood.x, expected, rtol=1e-10)
        residuals = torch.from_numpy(found.posterior_predictive.x.values) - mean
        assert_mean(residuals[0], 0.0)
        assert_mean(residuals[0] ** 2, 1.0)

    @pytest.mark.parametrize("emission", ["categorical", "bernoulli"])
    def test_padding_is_nan_everywhere_and_nothing_else_is(self, emission):
        lengths = torch.tensor([4, 1, 3])
        found = look(make(emission=emission), some_data(emission, lengths=lengths), num_samples=10)
        real = np.arange(4) < lengths.numpy()[:, None]
        for group in ("posterior", "prior", "posterior_predictive", "log_likelihood", "observed_data"):
            for values in found[group].data_vars.values():
                ours = real if values.ndim == values.dims.index("time") + 1 else real[..., None]
                assert (np.isfinite(values.values) == ours).all()
        full = look(make(emission="categorical"), some_data("categorical"), num_samples=10)
        assert full.observed_data.x.dtype == full.posterior_predictive.x.dtype == np.int64

    def test_views_agree(self):
        model, data = make(layers=2), some_data(lengths=torch.tensor([4, 2, 3]))
        plain = look(model, data, num_samples=50)
        other = look(nz.innovations(model), data, num_samples=50)
        np.testing.assert_allclose(other.posterior.z_2, plain.posterior.z_2, atol=1e-12)
        unrolled = look(nz.unroll(model), data, num_samples=50)
        assert set(unrolled.posterior) == {"z_1", "z_2"} and unrolled.posterior.z_1.shape == plain.posterior.z_1.shape

    def test_a_stream_in_one_window_is_its_columns(self):
        model, tokens = nz.LanguageModel(5, 3), torch.randint(5, (11,))
        stream = Stream(tokens, batch_size=2, window=6)
        (batch,) = stream.batches()
        columns = Sequences(batch.inputs, batch.targets, batch.lengths)
        found, same = (look(model, data, num_samples=20) for data in (stream, columns))
        np.testing.assert_array_equal(found.posterior.z_1, same.posterior.z_1)
        np.testing.assert_array_equal(found.observed_data.x[0], tokens[:6])
        with pytest.raises(ValueError, match=r"stream of 2 windows.* give a Stream whose window holds a whole column"):
            look(model, Stream(tokens, batch_size=2, window=4))

    def test_seeds(self):
        model, data = make(), some_data()
        before = torch.random.get_rng_state()
        one, two = (look(model, data, num_samples=20, seed=3) for _ in range(2))
        assert torch.equal(before, torch.random.get_rng_state())
        np.testing.assert_array_equal(one.posterior.z_1, two.posterior.z_1)
        assert not np.array_equal(one.posterior.z_1, look(model, data, num_samples=20, seed=4).posterior.z_1)

    def test_draws_in_pieces(self, linear_gaussian, exact_posterior, monkeypatch):
        model = linear_gaussian()
        data = drawn_from(model, batch=2, steps=1)
        monkeypatch.setattr(importlib.import_module("noisin_pyro.inference.posterior"), "LARGEST", 300)
        found = look(model, data, num_samples=1000, num_proposals=10_000)
        mean, covariance = exact_posterior(data.targets, 1.0)
        deviation = covariance.diagonal().sqrt().unflatten(0, (1, 2)).expand_as(mean)
        worth = 1 / (1 / 1000 + 1 / found.sample_stats.effective_proposals.values)
        assert abs(z_scores(found.posterior.z_1, mean, deviation, worth[:, None, None])).max() < LIMIT
        z = torch.from_numpy(found.posterior.z_1.values)
        law = dist.Normal(z @ model.emission.linear.weight.detach().T, 1.0).to_event(1)
        np.testing.assert_allclose(found.log_likelihood.x, law.log_prob(data.targets), rtol=1e-10)


class TestMemory:
    def test_what_is_said_is_what_it_takes(self, capsys):
        found = look(make(), some_data(), num_samples=500, num_proposals=1000, progress=True)
        groups = (found.posterior, found.prior, found.posterior_predictive, found.log_likelihood)
        size = sum(values.nbytes for group in groups for values in group.data_vars.values())
        told = capsys.readouterr().err
        latents = 1500 * 3 * 4 * 2 * 8
        assert told == f"posterior: 500 draws take {size / 1000:.3g} kB, and {latents / 1000:.3g} kB more while made\n"

    def test_too_much_is_refused_before_it_is_drawn(self, capsys):
        model, data = make(), some_data()
        with pytest.raises(ValueError, match=r"max_memory: 1000 draws take .* than 500 kB; .*num_samples=\d+\)"):
            look(model, data, max_memory=500_000)
        with pytest.raises(ValueError, match=r"max_memory: 4000 draws take .* \(about thin=\d+\)"):
            look(model, data, method="nuts", max_memory=1_000_000)
        assert capsys.readouterr().err == ""

    def test_thinning_keeps_every_other_draw(self):
        model, data = make(), some_data(batch=1, steps=1)
        options: Any = {"method": "nuts", "num_samples": 7, "warmup_steps": 5, "num_chains": 2}
        whole, thinned = look(model, data, **options), look(model, data, **options, thin=2)
        assert thinned.posterior.draw.values.tolist() == [0, 2, 4, 6]
        np.testing.assert_array_equal(thinned.posterior.z_1, whole.posterior.z_1[:, ::2])
        np.testing.assert_array_equal(thinned.sample_stats.diverging, whole.sample_stats.diverging[:, ::2])
        assert thinned.attrs["thin"] == 2


class TestWarningsAndRefusals:
    def test_a_hopeless_prior_says_so(self, linear_gaussian):
        model = linear_gaussian(hidden=4)
        data = drawn_from(model, batch=2, steps=10)
        with pytest.warns(UserWarning, match=r"k̂ is above 0.7 .* 10000 proposals from the prior do not reach") as told:
            found = look(model, data)
        assert told[0].filename == __file__
        assert (found.sample_stats.pareto_k > 0.7).any()

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"method": "nut"}, "method must be one of prior, guide, nuts, got 'nut'; did you mean 'nuts'"),
            ({"method": "guide"}, "method='guide' needs a guide, got none"),
            ({"method": "nuts", "guide": lambda *_, **__: None}, "method='nuts' has no use for a guide"),
            ({"method": "nuts", "num_proposals": 5}, "num_proposals has no effect on method='nuts'"),
            ({"num_chains": 2}, "num_chains has no effect on method='prior'; drop it, or take method='nuts'"),
            ({"thin": 2}, "thin has no effect on method='prior': its draws are independent"),
            ({"num_samples": 0}, "num_samples must be a whole number of at least 1, got 0"),
            ({"num_proposals": 1.5}, "num_proposals must be a whole number of at least 1, got 1.5"),
            ({"num_particles": 10}, "num_particles=10 has no effect where neither γ nor weights are sampled"),
        ],
    )
    def test_options(self, options, told):
        with pytest.raises(ValueError, match=told):
            look(make(), some_data(), **options)

    def test_models(self):
        with pytest.raises(ValueError, match="samples nothing beside the data"):
            look(make(spread=0.0), some_data())
        with pytest.raises(ValueError, match="'z_1_noise' is discrete; use method='prior'"):
            look(make(noise="bernoulli"), some_data(), method="nuts")
        with pytest.raises(ValueError, match="guide samples 'z_1_noise', which the model lacks"):
            model = make()
            look(model, some_data(), nz.guides.get("smoothing", model))
