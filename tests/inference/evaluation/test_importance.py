"""Importance sampling for models with exact log p(x) and posterior; guides; Pareto k̂."""

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI
from pyro.infer.autoguide import AutoNormal
from torch import Tensor

from noisin_pyro import (
    LanguageModel,
    NoisyRNN,
    PriorAsGuide_ELBO,
    SequenceModel,
    Spread,
    evaluate,
    innovations,
    unroll,
)
from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference.arviz import pareto_k


def drawn(model: SequenceModel, batch: int, steps: int) -> Sequences:
    inputs = torch.zeros(batch, steps, 1).double()
    with torch.no_grad(), poutine.block():
        x = poutine.trace(model).get_trace(inputs).nodes["x"]["value"]
    return Sequences(inputs, x)


def posterior_guide(inputs: Tensor, targets: Tensor, state=None, lengths=None) -> None:
    """The exact posterior of the linear-Gaussian model of two units, γ = 1: z = Lε, x = Ez + e."""
    steps = targets.shape[1]
    lag = torch.arange(steps)[:, None] - torch.arange(steps)
    transition = torch.where(lag >= 0, 0.9 ** lag.clamp(min=0).double(), 0.0)
    prior = torch.kron(transition @ transition.T, torch.eye(2).double())
    emission = torch.kron(torch.eye(steps), 0.5 + 0.5 * torch.eye(2)).double()
    covariance = torch.linalg.inv(torch.linalg.inv(prior) + emission.T @ emission)
    mean = targets.flatten(1) @ emission @ covariance
    flat = dist.MultivariateNormal(mean, covariance)
    path = dist.TransformedDistribution(flat, [dist.transforms.ReshapeTransform((2 * steps,), (steps, 2))])
    with pyro.plate("sequences", len(targets), dim=-1):
        pyro.sample("z_1", path)


class TestLinearGaussian:
    def test_from_the_prior_for_short_sequences(self, linear_gaussian, exact_log_likelihood):
        model = linear_gaussian(spread=0.5)
        data = drawn(model, batch=6, steps=2)
        result = evaluate(model, data, "importance", num_samples=20_000)
        truth = -exact_log_likelihood(data.targets, 0.5).sum().item() / 12
        assert result.kind == "bound" and result.num_samples == 20_000
        assert result.pareto_k < 0.7 and result.unreliable == 0
        # false-alarm rate 0.3 % (3 standard errors), at a fixed seed
        assert abs(result.nats_per_step - truth) < 3 * result.monte_carlo_error < 0.02

    def test_weights_from_the_posterior_all_equal_p_of_x(self, linear_gaussian, exact_log_likelihood):
        model = linear_gaussian()
        data = drawn(model, batch=5, steps=7)
        result = evaluate(model, data, "importance", num_samples=30, guide=posterior_guide)
        truth = exact_log_likelihood(data.targets, 1.0)
        # the model's 0.9 is that of float32
        assert result.nats_per_step == pytest.approx(-truth.sum().item() / 35, abs=1e-7)
        assert result.monte_carlo_error < 1e-7
        assert (result.pareto_k, result.unreliable) == (-np.inf, 0.0)
        assert result.effective_samples == pytest.approx(30)

    def test_weights_from_the_prior_are_reported_as_unreliable_for_long_sequences(
        self, linear_gaussian, exact_log_likelihood
    ):
        model = linear_gaussian()
        data = drawn(model, batch=6, steps=20)
        result = evaluate(model, data, "importance", num_samples=500)
        truth = -exact_log_likelihood(data.targets, 1.0).sum().item() / 120
        assert result.nats_per_step > truth + 5 * result.monte_carlo_error
        assert result.pareto_k > 0.7 and result.unreliable > 0.5 and result.effective_samples < 20

    @pytest.mark.slow
    def test_bound_of_a_trained_guide_is_between_that_of_the_prior_and_the_exact_value(
        self, linear_gaussian, exact_log_likelihood
    ):
        model = linear_gaussian()
        data = drawn(model, batch=4, steps=6)
        view = innovations(model)
        guide = AutoNormal(view)
        fixed = poutine.block(view, hide_types=["param"])
        svi = SVI(fixed, guide, pyro.optim.Adam({"lr": 0.05}), PriorAsGuide_ELBO(5))
        for _ in range(300):
            svi.step(data.inputs, data.targets)
        guided = evaluate(view, data, "importance", num_samples=200, guide=guide)
        prior = evaluate(view, data, "importance", num_samples=200)
        elbo = evaluate(view, data, "importance", num_samples=1, guide=guide)
        truth = -exact_log_likelihood(data.targets, 1.0).sum().item() / 24
        assert guided.nats_per_step > truth - 5 * guided.monte_carlo_error
        assert guided.nats_per_step < truth + 0.05 < min(prior.nats_per_step, elbo.nats_per_step)
        assert guided.effective_samples > 2 * prior.effective_samples


class TestOneSample:
    def test_is_the_elbo(self, assert_mean):
        model = LanguageModel(5, 3, spread=1.0).double()
        data = Stream(torch.randint(5, (21,)), batch_size=3, window=50)
        result = [evaluate(model, data, "importance", num_samples=1) for _ in range(400)]
        assert result[0].kind == "bound" and np.isnan(result[0].monte_carlo_error)
        assert (result[0].pareto_k, result[0].effective_samples) == (None, None)
        batch = next(data.batches())
        bound = PriorAsGuide_ELBO(400, max_plate_nesting=1)
        losses = torch.tensor([bound.loss(model, None, batch.inputs, batch.targets) for _ in range(10)])
        numbers = torch.tensor([each.nats_per_step for each in result]).double()
        assert_mean(numbers, losses.double().mean() / 21)


class TestGuides:
    def test_a_guide_over_some_sites_leaves_the_others_to_the_prior(self):
        rnn = NoisyRNN(1, 2, num_layers=2, spread=0.8)
        model = innovations(SequenceModel(rnn, "gaussian", 2).double())
        data = Sequences(torch.randn(3, 4, 1).double(), torch.randn(3, 4, 2).double(), torch.tensor([4, 2, 3]))

        def guide(inputs: Tensor, targets: Tensor, state=None, lengths=None) -> None:
            law = dist.Normal(torch.full((4, 2), 0.2).double(), 1.2)
            with pyro.plate("sequences", len(targets), dim=-1):
                pyro.sample("z_1_noise", law.to_event(2))

        result = [evaluate(model, data, "importance", num_samples=40_000, guide=each) for each in (guide, None)]
        error = (result[0].monte_carlo_error ** 2 + result[1].monte_carlo_error ** 2) ** 0.5
        # false-alarm rate 6e-7 (5 standard errors)
        assert abs(result[0].nats_per_step - result[1].nats_per_step) < 5 * error < 0.05
        assert result[0].monte_carlo_error > 1.2 * result[1].monte_carlo_error

    def test_guides_are_called_with_the_state_of_each_window(self):
        model = innovations(LanguageModel(5, 3, cell="lstm", spread=0.5).double())
        data = Stream(torch.randint(5, (23,)), batch_size=3, window=3)
        states = []

        def guide(inputs: Tensor, targets: Tensor, state=None, lengths=None) -> None:
            states.append(state)
            with pyro.plate("sequences", len(targets), dim=-1):
                pyro.sample("z_1_noise", dist.Normal(torch.zeros(targets.shape[1], 3).double(), 1.0).to_event(2))

        result = [evaluate(model, data, "importance", num_samples=4000, guide=each) for each in (guide, None)]
        error = (result[0].monte_carlo_error ** 2 + result[1].monte_carlo_error ** 2) ** 0.5
        assert abs(result[0].nats_per_step - result[1].nats_per_step) < 5 * error < 0.1  # false-alarm rate 6e-7
        carried = [state for state in states if state is not None]
        assert len(carried) == 2 and all(part.shape == (1, 4000, 3, 3) for state in carried for part in state)

    def test_shared_latents_must_be_conditioned_on(self):
        model = LanguageModel(5, 3, spread=Spread(prior=dist.LogNormal(-1.0, 0.3))).double()
        data = Stream(torch.randint(5, (23,)), batch_size=3, window=30)
        with pytest.raises(ValueError, match=r"'rnn.spread_1.gamma' is sampled outside .* condition on it"):
            evaluate(model, data, "importance")
        given = pyro.condition(model, {"rnn.spread_1.gamma": torch.tensor(0.4).double()})
        fixed = LanguageModel(5, 3, spread=0.4).double()
        fixed.load_state_dict(model.state_dict())
        result = [evaluate(each, data, "importance", num_samples=4000) for each in (given, fixed)]
        error = (result[0].monte_carlo_error ** 2 + result[1].monte_carlo_error ** 2) ** 0.5
        assert abs(result[0].nats_per_step - result[1].nats_per_step) < 5 * error  # false-alarm rate 6e-7

    def test_a_program_without_a_plate_is_refused(self):
        model = LanguageModel(5, 3, spread=0.4).double()

        def program(inputs, targets, state=None, lengths=None):
            out = poutine.block(model, hide=["x"])(inputs, state=state)
            pyro.sample("total", dist.Delta(out.emission.log_prob(targets).sum()), obs=torch.zeros(()).double())
            return out

        with pytest.raises(ValueError, match="model must open a plate of dimension -1 over its 3 sequences"):
            evaluate(program, Stream(torch.randint(5, (9,)), 3, 5), "importance")


def test_conditioned_states_are_refused():
    """Their density is no part of the score of x, and other methods leave it out."""
    model, data = LanguageModel(5, 3, num_layers=2), Stream(torch.randint(5, (9,)), 3, 5)
    for view in (lambda program: program, innovations, unroll):
        for layer in ("z_1", "z_2"):
            given = pyro.condition(model, {layer: torch.zeros(3, 3, 3)})
            with pytest.raises(ValueError, match=f"samples the noise, but '{layer}.*' is conditioned on"):
                evaluate(view(given), data, "importance")
            assert np.isfinite(evaluate(view(given), data, "ensemble", num_samples=2).nats_per_step)


class TestParetoK:
    def test_is_the_shape_of_a_pareto_tail(self):
        draws = torch.distributions.Pareto(1.0, torch.tensor([4.0, 2.0, 1.0])).sample((20_000,))
        np.testing.assert_allclose(pareto_k(draws.log().T.numpy()), [0.25, 0.5, 1.0], atol=0.12)

    @pytest.mark.parametrize(
        ("log_weights", "k"),
        [
            (np.zeros(100), -np.inf),
            (np.linspace(-1e-5, 0, 100), -np.inf),
            (np.linspace(-1.0, 0, 10), np.inf),
            (np.full(100, -np.inf), np.inf),
            (np.where(np.arange(100) < 98, -np.inf, 0.0), np.inf),
        ],
        ids=["equal", "equal but for rounding", "few", "none left", "two left"],
    )
    def test_where_there_is_no_tail(self, log_weights, k):
        assert pareto_k(np.stack([log_weights, np.random.default_rng(0).normal(size=len(log_weights))]))[0] == k
