"""Groups and variables of a posterior, its memory use, warnings and errors."""

import warnings
from typing import Any

import arviz
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import noisin_pyro as nz
from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference import blocks
from noisin_pyro.models import NoisyRNN, SequenceModel

from ... import arviz_lines
from .posteriors import LIMIT, drawn_from, look, make, some_data, z_scores


@pytest.fixture(autouse=True)
def own_parameters() -> Any:
    with pyro.settings.context(module_local_params=True):
        yield


class ReturnsStates(nn.Module):
    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        return self.model(*args, **kwargs).state


class TestGroups:
    def test_names_dimensions_and_coordinates(self):
        gamma = nz.Spread(prior=dist.Uniform(0.1, 0.2))
        model = make(layers=2, cell="lstm", input_spread=0.2, spread=[0.3, gamma])
        result = look(model, some_data(), num_samples=20, num_proposals=20_000, num_particles=8)
        for group in (result.posterior, result.prior):
            assert set(group) == {"z_0", "z_1", "z_2", "gamma_2"}
            assert group.z_2.dims == ("chain", "draw", "sequence", "time", "unit_2")
            assert dict(group.z_0.sizes) == {"chain": 1, "draw": 20, "sequence": 3, "time": 4, "unit_0": 3}
        assert result.posterior.time.values.tolist() == [1, 2, 3, 4]
        assert result.posterior.unit_1.values.tolist() == [0, 1]
        assert result.posterior_predictive.x.dims == ("chain", "draw", "sequence", "time", "feature")
        assert result.log_likelihood.x.dims == ("chain", "draw", "sequence", "time")
        assert result.observed_data.x.dims == ("sequence", "time", "feature")
        attrs = result.attrs
        assert attrs["noise"] == "gaussian:additive" and attrs["cell"] == "lstm" and attrs["seed"] == 1
        assert attrs["gamma_1"] == pytest.approx(0.3) and "Uniform" in attrs["gamma_2"]
        assert attrs["arviz_version"] == arviz.__version__ and attrs["num_proposals"] == 20_000

    def test_sampled_weights_without_noise(self):
        # no hidden state is left to sum over: log p(x | W) is the sum of its steps'
        model = SequenceModel(NoisyRNN(3, 2, spread=0.0), "categorical", 4, weight_prior="normal")
        data = some_data("categorical", lengths=torch.tensor([4, 1, 3]))
        data = data.to("cpu", torch.float32)
        result = look(model, data, num_samples=30)
        assert set(result.posterior) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0"}
        assert result.posterior["rnn.weight_ih_l0"].shape == (1, 30, 2, 3)
        likelihood = result.log_likelihood
        np.testing.assert_allclose(likelihood.x_marginal, likelihood.x.sum("time"), rtol=1e-5)
        # proposals are worth different weights, and those drawn are likelier than the prior's on the whole
        assert result.sample_stats.pareto_k < 0.7

    def test_log_likelihood_and_predictions_are_those_of_the_draws(self, linear_gaussian, assert_mean):
        model = linear_gaussian()
        data = drawn_from(model, batch=2, steps=2)
        result = look(model, data, num_samples=3000, num_proposals=30_000)
        z = torch.from_numpy(result.posterior.z_1.values)
        mean = z @ model.emission.linear.weight.detach().T
        expected = dist.Normal(mean, 1.0).to_event(1).log_prob(data.targets)
        np.testing.assert_allclose(result.log_likelihood.x, expected, rtol=1e-10)
        residuals = torch.from_numpy(result.posterior_predictive.x.values) - mean
        assert_mean(residuals[0], 0.0)
        assert_mean(residuals[0] ** 2, 1.0)

    @pytest.mark.parametrize("emission", ["categorical", "bernoulli"])
    def test_padding_is_nan_everywhere_and_nothing_else_is(self, emission):
        lengths = torch.tensor([4, 1, 3])
        result = look(make(emission=emission), some_data(emission, lengths=lengths), num_samples=10)
        real = np.arange(4) < lengths.numpy()[:, None]
        for group in ("posterior", "prior", "posterior_predictive", "log_likelihood", "observed_data"):
            for values in result[group].data_vars.values():
                ours = real if values.ndim == values.dims.index("time") + 1 else real[..., None]
                assert (np.isfinite(values.values) == ours).all()
        full = look(make(emission="categorical"), some_data("categorical"), num_samples=10)
        assert full.observed_data.x.dtype == full.posterior_predictive.x.dtype == np.int64

    def test_missing_targets_are_nan_and_have_predictions(self):
        mask = torch.tensor([[1, 0, 1, 1], [1, 1, 0, 1], [0, 1, 1, 1]]).bool()
        lengths, data = torch.tensor([4, 3, 2]), some_data()
        data = Sequences(data.inputs, data.targets.where(mask[..., None], np.nan), lengths, mask)
        model = make()
        result = look(model, data, num_samples=10)
        real = np.arange(4) < lengths.numpy()[:, None]
        assert (np.isfinite(result.log_likelihood.x[0, 0]) == (real & mask.numpy())).all()
        assert (np.isfinite(result.observed_data.x[..., 0]) == (real & mask.numpy())).all()
        for values in (result.posterior.z_1, result.posterior_predictive.x):
            assert (np.isfinite(values[0, 0, ..., 0]) == real).all()
        other = Sequences(data.inputs, data.targets.where(mask[..., None], 1.0), lengths, mask)
        np.testing.assert_array_equal(look(model, other, num_samples=10).posterior.z_1, result.posterior.z_1)

    def test_views_agree(self):
        model, data = make(layers=2), some_data(lengths=torch.tensor([4, 2, 3]))
        plain = look(model, data, num_samples=50)
        other = look(nz.innovations(model), data, num_samples=50)
        np.testing.assert_allclose(other.posterior.z_2, plain.posterior.z_2, atol=1e-12)
        unrolled = look(nz.unroll(model), data, num_samples=50)
        assert set(unrolled.posterior) == {"z_1", "z_2"} and unrolled.posterior.z_1.shape == plain.posterior.z_1.shape

    def test_columns_of_a_stream_are_sequences(self):
        model, tokens = nz.LanguageModel(5, 3), torch.randint(5, (11,))
        stream = Stream(tokens, batch_size=2, window=6)
        (batch,) = stream.batches()
        columns = Sequences(batch.inputs, batch.targets, batch.lengths)
        result, same = (look(model, data, num_samples=20) for data in (stream, columns))
        np.testing.assert_array_equal(result.posterior.z_1, same.posterior.z_1)
        np.testing.assert_array_equal(result.observed_data.x[0], tokens[:6])
        with pytest.raises(ValueError, match=r"got 2 windows.* use a Stream whose window contains a whole column"):
            look(model, Stream(tokens, batch_size=2, window=4))

    def test_seeds(self):
        model, data = make(), some_data()
        before = torch.random.get_rng_state()
        one, two = (look(model, data, num_samples=20, seed=3) for _ in range(2))
        assert torch.equal(before, torch.random.get_rng_state())
        np.testing.assert_array_equal(one.posterior.z_1, two.posterior.z_1)
        assert not np.array_equal(one.posterior.z_1, look(model, data, num_samples=20, seed=4).posterior.z_1)

    def test_draws_in_blocks(self, linear_gaussian, exact_posterior, monkeypatch):
        model = linear_gaussian()
        data = drawn_from(model, batch=2, steps=1)
        monkeypatch.setattr(blocks, "MAX_NUMEL", 300)
        result = look(model, data, num_samples=1000, num_proposals=10_000)
        mean, covariance = exact_posterior(data.targets, 1.0)
        deviation = covariance.diagonal().sqrt().unflatten(0, (1, 2)).expand_as(mean)
        worth = 1 / (1 / 1000 + 1 / result.sample_stats.effective_proposals.values)
        assert abs(z_scores(result.posterior.z_1, mean, deviation, worth[:, None, None])).max() < LIMIT
        z = torch.from_numpy(result.posterior.z_1.values)
        law = dist.Normal(z @ model.emission.linear.weight.detach().T, 1.0).to_event(1)
        np.testing.assert_allclose(result.log_likelihood.x, law.log_prob(data.targets), rtol=1e-10)


@pytest.mark.slow
def test_summaries_plots_and_loo_of_arviz(tmp_path):
    arviz_lines.save(tmp_path / "arrays.npz")
    with warnings.catch_warnings():  # it filters what the installed libraries announce to each other
        arviz_lines.check(tmp_path / "arrays.npz")


class TestMemory:
    def test_reported_memory_is_the_size_of_the_result(self, capsys):
        result = look(make(), some_data(), num_samples=500, num_proposals=1000, progress=True)
        groups = (result.posterior, result.prior, result.posterior_predictive, result.log_likelihood)
        size = sum(values.nbytes for group in groups for values in group.data_vars.values())
        reported = capsys.readouterr().err
        latents = 1500 * 3 * 4 * 2 * 8
        sizes = f"{size / 1000:.3g} kB, and {latents / 1000:.3g} kB more while computing"
        assert reported == f"posterior: 500 draws take {sizes}\n"

    def test_too_large_results_are_refused_before_sampling(self, capsys):
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
        for name in ("diverging", "energy"):
            np.testing.assert_array_equal(thinned.sample_stats[name], whole.sample_stats[name][:, ::2])
        assert thinned.attrs["thin"] == 2
        with warnings.catch_warnings():  # ArviZ 0.23 calls what matplotlib 3.13 will not have
            warnings.filterwarnings("ignore", "Passing a dict or None as alias_mapping")
            arviz.plot_energy(whole)


class TestWarningsAndRefusals:
    def test_unreliable_proposals_from_the_prior_cause_a_warning(self, linear_gaussian):
        model = linear_gaussian(hidden=4)
        data = drawn_from(model, batch=2, steps=10)
        with pytest.warns(
            UserWarning, match=r"k̂ is above 0.7 .* 10000 proposals from the prior do not cover"
        ) as warned:
            result = look(model, data)
        assert warned[0].filename == look.__code__.co_filename  # the line that calls posterior
        assert (result.sample_stats.pareto_k > 0.7).any()

    @pytest.mark.parametrize("name", ["mean-field", "smoothing", "custom"])
    def test_draws_of_a_guide_that_does_not_cover_the_posterior_cause_a_warning(self, name, linear_gaussian):
        model = linear_gaussian()
        inputs, x = torch.zeros(2, 3, 1).double(), 12 * torch.randn(2, 3, 2).double()

        def narrow(inputs, targets, lengths=None):
            with pyro.plate("sequences", len(inputs), dim=-1):
                pyro.sample("z_1_noise", dist.Normal(torch.zeros(3, 2).double(), 0.3).to_event(2))

        guide = narrow if name == "custom" else nz.guides.get(name, model)  # untrained: still the prior
        message = (
            r"k̂ is above 0.7 .*: the draws are those of the guide, which does not cover the posterior .* train the"
        )
        with pytest.warns(UserWarning, match=message) as warned:
            result = look(nz.innovations(model), Sequences(inputs, x), guide, num_samples=2000)
        assert warned[0].filename == look.__code__.co_filename
        assert (result.sample_stats.pareto_k > 0.7).any() and result.attrs["method"] == "guide, as drawn"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"method": "nut"}, "method must be one of prior, guide, nuts, smoother, got 'nut'; did you mean 'nuts'"),
            ({"method": "guide"}, "method='guide' needs a guide, got none"),
            ({"method": "nuts", "guide": lambda *_, **__: None}, "method='nuts' does not use a guide"),
            ({"method": "nuts", "num_proposals": 5}, "num_proposals has no effect on method='nuts'"),
            ({"num_chains": 2}, "num_chains has no effect on method='prior'; drop it, or use method='nuts'"),
            ({"thin": 2}, "thin has no effect on method='prior', whose draws are independent"),
            ({"num_samples": 0}, "num_samples must be a positive integer, got 0"),
            ({"num_proposals": 1.5}, "num_proposals must be a positive integer, got 1.5"),
            ({"num_particles": 10}, "num_particles=10 has no effect if neither γ nor weights are sampled"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            look(make(), some_data(), **options)

    def test_models(self):
        with pytest.raises(ValueError, match="has no latent sites"):
            look(make(spread=0.0), some_data())
        with pytest.raises(ValueError, match="'z_1_noise' is discrete; use method='prior'"):
            look(make(noise="bernoulli"), some_data(), method="nuts")
        with pytest.raises(ValueError, match="guide samples 'z_1_noise', which is not in the model"):
            model = make()
            guide = nz.guides.get("smoothing", model)
            look(model, some_data(), lambda *args, **kwargs: guide(*args, **kwargs))  # whose view is not known
        with pytest.raises(ValueError, match="model must return its emission and its state, got a Tensor"):
            look(ReturnsStates(make()), some_data())
