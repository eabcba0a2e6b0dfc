"""Every outcome of a filter with two particles, for discrete noise: p̂ and its gradient, exact up to rounding."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from noisin_pyro import NoisyRNN, SequenceModel, Spread
from noisin_pyro.data import Batch
from noisin_pyro.inference.filtering import resampling
from noisin_pyro.inference.filtering.differentiable import differentiable_filter
from noisin_pyro.inference.filtering.particle_filter import Settings
from noisin_pyro.inference.filtering.resampling import systematic_ancestors
from noisin_pyro.noise.distributions import NoisyPoisson
from noisin_pyro.noise.standardized import Standardized

from ... import textbook

PARTICLES = 2


class Outcomes:
    """Draws of the noise and branches of the systematic resampling, one combination in each row, with probabilities.

    Args:
        values: the values of one draw: ε, or for native noise the counts.
        steps: T.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, values: list[float], steps: int) -> None:
        draws, branches = steps * PARTICLES, steps - 1  # resampling after the last step changes nothing
        rows = list(itertools.product(*[values] * draws, *[[0, 1]] * branches))
        table = torch.tensor(rows, dtype=torch.float64)
        self.size, self.noise = len(rows), table[:, :draws].T.reshape(steps, PARTICLES, -1, 1)
        self.branches = table[:, draws:].T.bool()
        self.probability = torch.ones(len(rows), dtype=torch.float64)
        monkeypatch.setattr(Standardized, "rsample", lambda law, *_: self._epsilon(law))
        monkeypatch.setattr(NoisyPoisson, "sample", lambda law, *_: self._counts(law))
        monkeypatch.setattr(resampling, "systematic_ancestors", self._ancestors)
        self._monkeypatch = monkeypatch
        self.restart()

    def restart(self) -> None:
        self._steps: Iterator[int] = iter(range(len(self.noise)))
        self._resamplings: Iterator[int] = iter(range(len(self.branches)))
        self.probability = torch.ones_like(self.probability)

    def total_probability(self) -> Tensor:
        """The probability of each row; branches of resamplings that did not take place are equally likely."""
        return self.probability * 0.5 ** len(list(self._resamplings))

    def _epsilon(self, law: Standardized) -> Tensor:
        epsilon = self.noise[next(self._steps)]
        self.probability = self.probability * law.log_prob(epsilon).exp().prod(0)
        return epsilon

    def _counts(self, law: Any) -> Tensor:
        z = law.step * self.noise[next(self._steps)]
        self.probability = self.probability * law.log_prob(z).detach().exp().prod(0)
        return z

    def _ancestors(self, log_w: Tensor, due: Tensor) -> Tensor:
        """The offspring of two particles change at one value of the uniform: each branch is on one side of it."""
        step = next(self._resamplings, None)
        if step is None:
            return torch.arange(PARTICLES).reshape(1, -1, 1).expand(log_w.shape)
        weight = log_w.exp()[0, 0]
        cut = torch.where(weight < 0.5, 2 * weight, 2 * weight - 1)
        branch = self.branches[step]
        chance = torch.where(branch, 1 - cut, cut)
        self.probability = self.probability * torch.where(due[0], chance, 0.5)
        uniform = torch.where(branch, (cut + 1) / 2, cut / 2).reshape(1, -1, 1)
        with self._monkeypatch.context() as patch:
            patch.setattr(torch, "rand_like", lambda like: uniform.expand(like.shape))
            return systematic_ancestors(log_w, due)


def make(cell: str, noise: str, spread: float | Spread) -> SequenceModel:
    """A model with one unit."""
    torch.manual_seed(1)
    model = SequenceModel(NoisyRNN(1, 1, cell=cell, noise=noise, spread=spread), "bernoulli", 1).double()
    with torch.no_grad():
        model.emission.linear.weight.fill_(1.5)
        model.rnn.weight_hh_l0.mul_(2)
        if noise == "poisson:native":
            model.rnn.bias_ih_l0.fill_(-2.5)  # small means, so that counts above 8 have a probability of 1e-12
    return model


def exact(model: SequenceModel, noise: str, values: list[float], inputs: Tensor, x: Tensor) -> Tensor:
    """log p(x) by the sum over all trajectories of the textbook's equations."""
    steps = x.shape[1]
    draws = torch.tensor(list(itertools.product(*[values] * steps)), dtype=torch.float64)
    spread = model.rnn.spread_1(inputs).squeeze()
    log_p: Any = 0.0 if noise == "poisson:native" else -steps * math.log(2)
    rates = []

    def draw(layer: int, t: int, mean: Tensor) -> Tensor:
        if noise != "poisson:native":
            return mean + spread * draws[:, t : t + 1]
        rates.append(mean / spread**2)
        return (spread**2 * draws[:, t : t + 1]).expand(-1, 1)

    (layer,) = textbook.run(model.rnn, inputs.expand(len(draws), -1, -1), draw)
    for t, rate in enumerate(rates):
        log_p = log_p + torch.distributions.Poisson(rate.squeeze(-1)).log_prob(draws[:, t])
    scores = layer.z @ model.emission.linear.weight.T + model.emission.linear.bias
    log_p = log_p + torch.distributions.Bernoulli(logits=scores).log_prob(x).sum((1, 2))
    return log_p.logsumexp(0)


def check(
    model: SequenceModel, noise: str, values: list[float], steps: int, threshold: float, ancestor_term: bool,
    outcomes: Outcomes,
) -> tuple[float, float]:  # fmt: skip
    """E[p̂/p] - 1, and the largest error of E[(p̂/p) ∇log p̂] relative to the largest element of ∇log p(x)."""
    inputs = torch.linspace(-1, 1, steps).double().reshape(1, steps, 1)
    x = (torch.arange(steps) % 2 == 0).double().reshape(1, steps, 1)
    log_p = exact(model, noise, values, inputs, x)
    batch = Batch(inputs.expand(outcomes.size, -1, -1), x.expand(outcomes.size, -1, -1), None, False)
    outcomes.restart()
    estimate, *_ = differentiable_filter(model, batch, None, Settings(1, PARTICLES, threshold), ancestor_term)
    weight = outcomes.total_probability() * (estimate - log_p).detach().exp()
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad((weight * estimate).sum(), parameters)
    scores = torch.autograd.grad(log_p, parameters)
    error = max(float((g - s).abs().max()) for g, s in zip(gradients, scores, strict=True))
    return float(weight.sum()) - 1, error / max(float(s.abs().max()) for s in scores)


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
@pytest.mark.parametrize("threshold", [0.0, 0.9, 1.0])
def test_weighted_gradient_is_the_score(cell: str, threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model, values = make(cell, "bernoulli", Spread(0.8, floor=0.0, learn=True)), [-1.0, 1.0]
    outcomes = Outcomes(monkeypatch, values, 3)
    bias, error = check(model, "bernoulli", values, 3, threshold, True, outcomes)
    assert abs(bias) < 1e-12 and error < 1e-12
    bias, error = check(model, "bernoulli", values, 3, threshold, False, outcomes)
    assert abs(bias) < 1e-12
    assert error < 1e-12 if threshold == 0 else error > 1e-3  # without resampling there are no ancestors


def test_weighted_gradient_is_the_score_for_a_law_that_depends_on_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    model, values = make("sigmoid", "poisson:native", 1.0), [float(count) for count in range(9)]
    outcomes = Outcomes(monkeypatch, values, 2)
    bias, error = check(model, "poisson:native", values, 2, 1.0, True, outcomes)
    assert abs(bias) < 1e-12 and error < 1e-10  # counts above 8 are left out
    bias, error = check(model, "poisson:native", values, 2, 1.0, False, outcomes)
    assert abs(bias) < 1e-12 and error > 1e-3
