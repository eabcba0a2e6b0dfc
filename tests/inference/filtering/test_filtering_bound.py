"""The filtering bound: the same numbers as the model's own densities, its gradient, and what it refuses."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro.infer import SVI
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro import LanguageModel, PriorAsGuide_ELBO, SequenceModel, Spread
from noisin_pyro.data import Batch
from noisin_pyro.inference.blocks import LargestTensor
from noisin_pyro.inference.filtering.differentiable import differentiable_filter
from noisin_pyro.inference.filtering.particle_filter import Settings, filter_window
from noisin_pyro.models import CELLS, EMISSIONS
from noisin_pyro.recurrence import softmax

from .programs import BATCH, OUTPUTS, PARTICLES, STEPS, data, filtering, make


def perturbed(model: SequenceModel, name: str, scale: float = 0.3, **options: Any) -> Any:
    """A guide away from the prior."""
    guide = nz.guides.get(name, model, hidden_size=4, **options)
    with torch.no_grad():
        for parameter in guide.parameters():  # pyright: ignore[reportFunctionMemberAccess]
            parameter.add_(scale * torch.randn_like(parameter))
    return guide


class TestValue:
    @pytest.mark.parametrize(
        "options",
        [{"cell": cell, "num_layers": 2, "input_spread": 0.2} for cell in CELLS]
        + [{"emission": emission} for emission in EMISSIONS]
        + [{"feedback": False, "cell": "gru"}, {"noise": "dirichlet"}, {"noise": "gamma:multiplicative"}]
        + [{"noise": f"{name}:native", "cell": "sigmoid"} for name in ("beta", "gamma", "poisson")],
        ids=str,
    )
    def test_without_resampling_is_that_of_the_models_own_densities(self, options):
        emission = options.pop("emission", "bernoulli")
        model, (inputs, x) = make(emission, **options), data(emission)
        drawn: list[dict[int, Tensor]] = []
        batch = Batch(inputs, x, None, False)
        filtered, _ = filter_window(
            model, batch, None, Settings(1, PARTICLES, 0.0), visit=lambda step: drawn.append(step.proposed.drawn)
        )
        paths = {
            f"z_{layer}": torch.stack([z[layer].expand(PARTICLES, BATCH, -1) for z in drawn], -2) for layer in drawn[0]
        }
        with pyro.plate("particles", PARTICLES, dim=-2), torch.no_grad():
            out = pyro.condition(model, paths)(inputs, x)
        log_p = out.emission.log_prob(x).sum(-1).logsumexp(0) - math.log(PARTICLES)
        torch.testing.assert_close(filtered.increments[0].sum(-1), log_p)

    @pytest.mark.parametrize("cell", ["tanh", "lstm"])
    @pytest.mark.parametrize("name", [None, "mean-field"])
    def test_windows_equal_one_long_window(self, cell, name):
        model = LanguageModel(5, 3, num_layers=2, cell=cell, spread=1.0).double()
        inputs, targets = torch.randint(5, (2, 2, 8))
        guide = None
        if name is not None:  # maps that depend on x_t alone are the same in every window
            guide = perturbed(model, name)
            with torch.no_grad():
                for gru in (guide.encoder.forward_in_time, guide.encoder.backward_in_time):
                    for parameter in gru.parameters():
                        parameter.zero_()
        bound = filtering(model, guide, threshold=0.9)
        pyro.set_rng_seed(1)
        whole = bound(inputs, targets)
        pyro.set_rng_seed(1)
        total, state = torch.zeros(()), None
        for window in (slice(0, 3), slice(3, 6), slice(6, 8)):
            total = total + bound(inputs[:, window], targets[:, window], state=state)
            state = bound.returned.state
        torch.testing.assert_close(total, whole)

    @pytest.mark.parametrize("guided", [False, True])
    @pytest.mark.parametrize("cell", ["tanh", "lstm"])
    def test_padding_has_no_density_no_gradient_and_no_effect_on_the_state(self, cell, guided):
        model, (inputs, x) = make(cell=cell, num_layers=2), data()
        bound = filtering(model, perturbed(model, "filtering") if guided else None, threshold=1.0)
        gradients, states = [], []
        for steps in (3, STEPS):
            pyro.set_rng_seed(1)
            lengths = None if steps == 3 else torch.tensor([3, 3, 3])
            loss = bound(inputs[:, :steps], x[:, :steps], lengths=lengths)
            gradients.append((loss, *torch.autograd.grad(loss, [p for p in bound.parameters() if p.requires_grad])))
            states.append(bound.returned.state)
        for padded, cut in zip(gradients[1] + states[1], gradients[0] + states[0], strict=True):
            torch.testing.assert_close(padded, cut)
        bound(inputs, x, lengths=torch.tensor([0, 2, 5]))
        torch.testing.assert_close(bound.returned.log_likelihood[0], torch.zeros(()).double())
        assert bound.returned.effective_samples[0] == bound.returned.resamplings[0] == 0

    def test_starts_from_a_state_of_the_model(self):
        model, (inputs, x) = make(cell="lstm"), data()
        bound = filtering(model)
        state = model(inputs, x).state
        pyro.set_rng_seed(1)
        first = bound(inputs, x, state=state)
        z, c = (part.unsqueeze(1).expand(-1, PARTICLES, -1, -1) for part in state)
        log_w = torch.full((1, PARTICLES, BATCH, 1), -math.log(PARTICLES), dtype=torch.float64)
        pyro.set_rng_seed(1)
        torch.testing.assert_close(first, bound(inputs, x, state=(z, c, log_w)))

    def test_size_scales_the_likelihood(self):
        model, (inputs, x) = make(), data()
        losses = []
        for size in (None, 4 * BATCH):
            pyro.set_rng_seed(1)
            losses.append(filtering(model)(inputs, x, size=size))
        torch.testing.assert_close(4 * losses[0], losses[1])

    def test_spread_with_a_prior_pays_its_kl_only_if_a_guide_samples_it(self):
        prior = dist.LogNormal(-1.0, 0.3)
        model, plain = make(spread=Spread(prior=prior)), make(spread=0.7)
        for name, parameter in model.named_parameters():
            parameter.data = plain.get_parameter(name).data
        inputs, x = data()

        def guide(*_: Any, **__: Any) -> None:
            pyro.sample("rnn.spread_1.gamma", dist.Delta(torch.tensor(0.7), log_density=torch.tensor(2.0)))

        given = pyro.condition(model, {"rnn.spread_1.gamma": torch.tensor(0.7)})
        losses = []
        for program, proposal in ((plain, None), (model, guide), (given, None)):
            pyro.set_rng_seed(1)
            losses.append(filtering(program, proposal)(inputs, x))
        log_prior = prior.log_prob(torch.tensor(0.7))
        torch.testing.assert_close(losses[1], losses[0] + 2.0 - log_prior)
        torch.testing.assert_close(losses[2], losses[0] - log_prior)
        unguided = filtering(model)(inputs, x)
        unguided.backward()
        assert unguided.isfinite() and model.emission.linear.weight.grad.abs().sum() > 0


class TestUnbiased:
    """E[p̂] is p(x) with any proposal; the false-alarm rate of each test is 1e-6, at fixed seeds."""

    @pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("name", ["mean-field", "filtering", "smoothing"])
    def test_with_a_guide(self, linear_gaussian, exact_log_likelihood, assert_mean, name, threshold):
        pyro.set_rng_seed(0)
        model = linear_gaussian()
        guide = perturbed(model, name, covariance="full")
        x = torch.tensor([[0.5, -1.0], [2.0, 1.5], [0.0, 1.0]]).double().expand(3000, -1, -1)
        bound = filtering(model, guide, particles=6, threshold=threshold)
        with torch.no_grad():
            bound(torch.zeros(3000, 3, 1).double(), x)
        assert_mean((bound.returned.log_likelihood - exact_log_likelihood(x[:1], 1.0)).exp(), 1.0)
        assert bool((bound.returned.resamplings > 0).any()) == (threshold > 0)

    @pytest.mark.parametrize(
        "options",
        [
            {"cell": "lstm", "num_layers": 2, "input_spread": 0.3},
            {"cell": "gru", "noise": "laplace"},
            {"noise": "dirichlet"},
            {"cell": "sigmoid", "noise": "gamma:multiplicative"},
            {"cell": "sigmoid", "noise": "beta:native"},
            {"feedback": False},
        ],
        ids=str,
    )
    def test_the_same_mean_with_and_without_a_guide(self, options, assert_mean):
        pyro.set_rng_seed(0)
        model = make(**options)
        inputs, x = (values.expand(4000, -1, -1) for values in data(batch=1, steps=3))
        estimates = []
        for guide in (None, perturbed(model, "smoothing", 0.2)):
            bound = filtering(model, guide, particles=4, threshold=1.0)
            with torch.no_grad():
                bound(inputs, x)
            estimates.append(bound.returned.log_likelihood.exp())
        assert_mean((estimates[1] - estimates[0]) / estimates[0].mean(), 0.0)

    def test_weighted_gradient_is_the_score(self, linear_gaussian, exact_log_likelihood):
        # z < 4 has a false-alarm rate of 6e-5, at a fixed seed; 40,000 replicates in 40 groups
        pyro.set_rng_seed(0)
        model = linear_gaussian(spread=Spread(0.7, floor=0.0, learn=True))
        x = torch.tensor([[1.5, -1.0], [2.0, 1.5], [-1.0, 1.0]]).double()
        gamma = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        log_p = exact_log_likelihood(x[None], gamma)
        (score,) = torch.autograd.grad(log_p, gamma)
        excess = model.rnn.spread_1.excess_unconstrained
        chain = torch.sigmoid(excess).item()  # dγ/dρ of the softplus
        batch = Batch(torch.zeros(1000, 3, 1).double(), x.expand(1000, -1, -1), None, False)
        z = {}
        for ancestor_term in (True, False):
            groups = []
            for _ in range(40):
                estimate, *_ = differentiable_filter(model, batch, None, Settings(1, 8, 1.0), ancestor_term)
                weight = (estimate - log_p).detach().exp() / len(estimate)
                groups.append(torch.autograd.grad((weight * estimate).sum(), excess)[0] / chain)
            means = torch.stack(groups)
            z[ancestor_term] = float((means.mean() - score) / (means.std() / 40**0.5))
        assert abs(z[True]) < 4 and abs(z[False]) > 5


class TestTraining:
    def test_softmax_in_blocks(self, monkeypatch):
        model = LanguageModel(50, 3, spread=1.0).double()
        inputs, targets = torch.randint(50, (2, 2, 6))
        gradients = []
        for limit in (softmax.BLOCK_NUMEL, 100):
            monkeypatch.setattr(softmax, "BLOCK_NUMEL", limit)
            pyro.set_rng_seed(1)
            with LargestTensor() as largest:
                gradients.append(torch.autograd.grad(filtering(model)(inputs, targets), list(model.parameters())))
        assert largest.numel < PARTICLES * 2 * 50  # the scores of one step
        for small, large in zip(*gradients, strict=True):
            torch.testing.assert_close(small, large)

    def test_an_impossible_target_has_probability_zero(self):
        model, (inputs, x) = make("gaussian"), data()
        x[1, 2, 0] = math.inf
        with pyro.validation_enabled(False):
            bound = filtering(model)
            loss = bound(inputs, x)
        log_likelihood = bound.returned.log_likelihood
        assert loss == math.inf and log_likelihood[1] == -math.inf and log_likelihood[[0, 2]].isfinite().all()

    @pytest.mark.parametrize("emission", ["bernoulli", "categorical"])
    def test_frozen_parameters(self, emission):
        inputs, x = data(emission)
        with pyro.settings.context(module_local_params=True):
            model = LanguageModel(OUTPUTS, 3).double() if emission == "categorical" else make(emission)
            loss = filtering(model.requires_grad_(False))(x if emission == "categorical" else inputs, x)
        assert loss.isfinite() and not loss.requires_grad

    def test_svi(self):
        with pyro.settings.context(module_local_params=False):
            pyro.clear_param_store()
            model, (inputs, x) = make(spread=Spread(0.5, learn=True)), data()
            svi = SVI(model, None, pyro.optim.Adam({"lr": 0.05}), PriorAsGuide_ELBO(8, bound="filtering"))
            losses = [float(svi.step(inputs, x)) for _ in range(30)]
            assert sum(losses[-5:]) < sum(losses[:5]) - 5

    def test_a_guide_and_the_model_get_gradients(self):
        model = make(num_layers=2, spread=Spread(0.5, learn=True))
        bound = filtering(model, nz.guides.get("smoothing", model))
        bound(*data()).backward()
        for part in (bound.model, bound.guide):
            assert sum(p.grad.abs().sum() for p in part.parameters() if p.grad is not None) > 0
        assert all(model.get_parameter(f"rnn.spread_{layer}.excess_unconstrained").grad != 0 for layer in (1, 2))
