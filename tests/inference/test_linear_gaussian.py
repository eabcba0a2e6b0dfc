"""Bounds and learned γ of a model with exact log p(x)."""

import itertools
import math

import pyro
import pyro.optim
import pytest
import torch
from pyro import poutine

from noisin_pyro import PriorAsGuide_ELBO, SequenceModel, Spread
from noisin_pyro.inference.importance_weights import log_weights


class TestLinearGaussian:
    """Bounds and learned γ of a model with exact log p(x)."""

    def data(self, model: SequenceModel, batch: int = 4, steps: int = 3):
        inputs = torch.zeros(batch, steps, 1).double()
        with torch.no_grad(), poutine.block():
            trace = poutine.trace(model).get_trace(inputs)
        return inputs, trace.nodes["x"]["value"]

    @pytest.mark.slow
    def test_bounds_are_ordered(self, linear_gaussian, exact_log_likelihood):
        model = linear_gaussian()
        inputs, x = self.data(model)
        truth = exact_log_likelihood(x, 1.0).sum()
        values = {}
        for bound, particles in (("elbo", 1), ("importance", 2), ("importance", 20)):
            elbo = PriorAsGuide_ELBO(particles, bound=bound, max_plate_nesting=1)
            values[bound, particles] = torch.tensor([-elbo.loss(model, None, inputs, x) for _ in range(2000)]).double()
        ordered = [values["elbo", 1], values["importance", 2], values["importance", 20]]
        for smaller, larger in itertools.pairwise(ordered):
            error = (smaller.var() / 2000 + larger.var() / 2000).sqrt()
            assert smaller.mean() < larger.mean() - 5 * error
        last = ordered[-1]
        assert last.mean() < truth - 5 * last.std() / 2000**0.5

    def test_importance_bound_converges_to_the_log_likelihood(self, linear_gaussian, exact_log_likelihood):
        model = linear_gaussian()
        inputs, x = self.data(model, steps=2)
        value = -PriorAsGuide_ELBO(200_000, bound="importance").loss(model, None, inputs, x)
        # four sequences, each a log-mean of 2e5 weights whose coefficient of variation is below 10
        assert value == pytest.approx(exact_log_likelihood(x, 1.0).sum().item(), abs=0.2)

    def test_importance_bound_increases_with_the_number_of_samples(self, linear_gaussian):
        model = linear_gaussian()
        inputs, x = self.data(model)
        elbo = PriorAsGuide_ELBO(6, bound="importance", max_plate_nesting=1)
        pyro.set_rng_seed(9)
        ((model_trace, guide_trace),) = elbo._get_traces(model, None, (inputs, x), {})
        plates = frozenset(f for f in model_trace.nodes["x"]["cond_indep_stack"] if f.name == "sequences")
        log_w = log_weights(model_trace, guide_trace, plates)
        assert log_w.shape == (6, 4)
        averages = []
        for size in range(1, 7):
            subsets = torch.tensor(list(itertools.combinations(range(6), size)))
            averages.append((log_w[subsets].logsumexp(1) - math.log(size)).mean(0))
        assert (torch.stack(averages).diff(dim=0) >= 0).all()
        pyro.set_rng_seed(9)
        assert -elbo.loss(model, None, inputs, x) == pytest.approx(averages[-1].sum().item())

    @pytest.mark.slow
    def test_learned_spread_goes_to_its_floor(self, linear_gaussian):
        # identity cell, additive noise, concave emission: the best γ under equation (1) is the floor
        model = linear_gaussian(spread=Spread(1.0, floor=0.1, learn=True))
        inputs, x = self.data(model, batch=20, steps=5)
        self.learn_spread(model, PriorAsGuide_ELBO(10)(model), inputs, x, steps=600, rate=0.2)
        assert 0.1 <= model.rnn.spreads()["gamma_1"] < 0.12

    @pytest.mark.slow
    def test_importance_bound_finds_the_maximum_likelihood_spread_for_one_step(
        self, linear_gaussian, exact_log_likelihood
    ):
        x = self.data(linear_gaussian(hidden=1), batch=400, steps=1)[1]
        grid = torch.linspace(0.3, 2.0, 341).double()
        likeliest = grid[torch.stack([exact_log_likelihood(x, g, 1).sum() for g in grid]).argmax()].item()
        model = linear_gaussian(hidden=1, spread=Spread(0.3, floor=0.0, learn=True))
        bound = PriorAsGuide_ELBO(100, bound="importance")(model)
        result = self.learn_spread(model, bound, torch.zeros(400, 1, 1).double(), x, steps=300, rate=0.05)
        assert result == pytest.approx(likeliest, rel=0.05)

    @staticmethod
    def learn_spread(model, bound, inputs, x, steps: int, rate: float) -> float:
        """Learn γ by gradient steps, and average it over the last half."""
        optimizer = torch.optim.Adam([model.rnn.spread_1.excess_unconstrained], lr=rate)
        history = []
        for _ in range(steps):
            optimizer.zero_grad()
            (bound(inputs, x) / len(x)).backward()
            optimizer.step()
            history.append(model.rnn.spreads()["gamma_1"])
        return sum(history[steps // 2 :]) / (steps - steps // 2)
