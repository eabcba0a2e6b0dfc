"""The bound over the kinds of models that Pyro's ELBOs support: exact values and gradients, without Monte Carlo."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import Tensor

from noisin_pyro import PriorAsGuide_ELBO

from .exact import Drawn, Program, X, expectation, parameters, value_and_gradients


def plated(p, observe=True):
    with pyro.plate("data", 3):
        b = pyro.sample("b", dist.Bernoulli(logits=p["m"]))
        if observe:
            pyro.sample("x", dist.Normal(b, p["l"].exp()), obs=X)


def subsampled(p, observe=True):
    with pyro.plate("data", 30, subsample=torch.arange(3)):
        b = pyro.sample("b", dist.Bernoulli(logits=p["m"]))
        if observe:
            pyro.sample("x", dist.Normal(b, p["l"].exp()), obs=X)


def scaled(p, observe=True):
    with poutine.scale(scale=0.3):
        plated(p, observe)


def masked(p, observe=True):
    with poutine.mask(mask=torch.tensor([True, False, True])):
        plated(p, observe)


def nested(p, observe=True):
    with pyro.plate("outer", 2, dim=-2):
        b = pyro.sample("b", dist.Bernoulli(logits=p["m"]))
        with pyro.plate("inner", 3, dim=-1):
            if observe:
                pyro.sample("x", dist.Normal(b, p["l"].exp()), obs=torch.stack([X, 2 * X]))


def upstream(p, observe=True):
    c = pyro.sample("c", dist.Bernoulli(logits=p["m"]))
    with pyro.plate("data", 2):
        b = pyro.sample("b", dist.Bernoulli(logits=p["l"] + 2 * c))
        if observe:
            pyro.sample("x", dist.Normal(b, p["l"].exp()), obs=X[:2])


def chain(p, observe=True):
    state = torch.zeros((), dtype=torch.float64)
    for t in pyro.markov(range(3)):
        state = pyro.sample(f"s_{t}", dist.Bernoulli(logits=p["m"] + 2 * state - 1))
        if observe:
            pyro.sample(f"x_{t}", dist.Normal(state, p["l"].exp()), obs=X[t])


def sequential_plate(p, observe=True):
    for i in pyro.plate("data", 30, subsample=torch.arange(3)):
        b = pyro.sample(f"b_{int(i)}", dist.Bernoulli(logits=p["m"]))
        if observe:
            pyro.sample(f"x_{int(i)}", dist.Normal(b, p["l"].exp()), obs=X[int(i)])


BITS: dict[Program, dict[str, tuple[int, ...]]] = {
    plated: {"b": (3,)},
    subsampled: {"b": (3,)},
    scaled: {"b": (3,)},
    masked: {"b": (3,)},
    nested: {"b": (2, 1)},
    upstream: {"c": (), "b": (2,)},
    chain: {"s_0": (), "s_1": (), "s_2": ()},
    sequential_plate: {"b_0": (), "b_1": (), "b_2": ()},
}


def mean_log_likelihood(p: dict[str, Tensor], x: Tensor) -> Tensor:
    """E[log N(x; b, e^l)] of each x, with b ~ Bernoulli(logits m)."""
    bits = torch.tensor([0.0, 1.0], dtype=torch.float64)
    chance = dist.Bernoulli(logits=p["m"]).log_prob(bits).exp()
    return (chance * dist.Normal(bits, p["l"].exp()).log_prob(x.unsqueeze(-1))).sum(-1)


@pytest.mark.parametrize("program", BITS)
@pytest.mark.parametrize("guided", [False, True])
def test_equals_enumeration(program, guided):
    p, q = parameters(), parameters()
    guide = (lambda: program(q, observe=False)) if guided else (lambda: program(p, observe=False))
    exact = TraceEnum_ELBO(max_plate_nesting=2).differentiable_loss(lambda: program(p), config_enumerate(guide))
    elbo = PriorAsGuide_ELBO(max_plate_nesting=2)

    def loss(draw):
        if guided:
            return elbo.differentiable_loss(lambda: program(p), draw(guide))
        return elbo.differentiable_loss(draw(lambda: program(p)), None)

    expected = value_and_gradients(exact, p, q)
    assert expected[1:].abs().max() > 0.01
    torch.testing.assert_close(value_and_gradients(expectation(loss, guide, BITS[program]), p, q), expected)


class TestClosedForms:
    """Equation (1) of a likelihood that is a sum over its elements."""

    @pytest.mark.parametrize(
        ("program", "weights"),
        [
            (plated, [1.0, 1.0, 1.0]),
            (subsampled, [10.0, 10.0, 10.0]),
            (scaled, [0.3, 0.3, 0.3]),
            (masked, [1.0, 0.0, 1.0]),
            (sequential_plate, [10.0, 10.0, 10.0]),
        ],
    )
    def test_scale_and_mask_weigh_the_likelihood(self, program, weights):
        p, elbo = parameters(), PriorAsGuide_ELBO()
        exact = -(torch.tensor(weights, dtype=torch.float64) * mean_log_likelihood(p, X)).sum()
        actual = expectation(
            lambda draw: elbo.differentiable_loss(draw(lambda: program(p)), None), lambda: program(p), BITS[program]
        )
        torch.testing.assert_close(value_and_gradients(actual, p), value_and_gradients(exact, p))

    def test_a_latent_that_is_masked_is_still_drawn_from_its_prior(self):
        # the mask removes its density from the bound, which has none of it here; x depends on the draw all the same
        def model(p):
            with pyro.plate("data", 3):
                with poutine.mask(mask=torch.tensor([False, True, True])):
                    b = pyro.sample("b", dist.Bernoulli(logits=p["m"]))
                pyro.sample("x", dist.Normal(b, p["l"].exp()), obs=X)

        p, elbo = parameters(), PriorAsGuide_ELBO()
        exact = -mean_log_likelihood(p, X).sum()
        actual = expectation(
            lambda draw: elbo.differentiable_loss(draw(lambda: model(p)), None), lambda: model(p), {"b": (3,)}
        )
        torch.testing.assert_close(value_and_gradients(actual, p), value_and_gradients(exact, p))

    @pytest.mark.parametrize("law", [dist.Normal, NonreparameterizedNormal])
    def test_pathwise_and_score_function_sites_below_a_discrete_one(self, law):
        def model(p):
            b = pyro.sample("b", dist.Bernoulli(logits=p["m"]))
            z = pyro.sample("z", law(b, p["l"].exp()))
            pyro.sample("x", dist.Normal(z, 1.0), obs=X[2])

        p, elbo = parameters(), PriorAsGuide_ELBO()
        bits = torch.tensor([0.0, 1.0], dtype=torch.float64)
        chance = dist.Bernoulli(logits=p["m"]).log_prob(bits).exp()
        exact = (chance * ((X[2] - bits) ** 2 + (2 * p["l"]).exp())).sum() / 2 + math.log(2 * math.pi) / 2
        actual = expectation(
            lambda draw: elbo.differentiable_loss(draw(lambda: model(p)), None), lambda: model(p), {"b": ()}, ("z",)
        )
        torch.testing.assert_close(value_and_gradients(actual, p), value_and_gradients(exact, p))

    def test_pathwise_sites_outside_and_inside_a_subsampled_plate(self):
        def model(p):
            mean = pyro.sample("mean", dist.Normal(p["m"], 1.0))
            with pyro.plate("data", 10, subsample=torch.arange(1)):
                z = pyro.sample("z", dist.Normal(mean, p["l"].exp()))
                pyro.sample("x", dist.Normal(z, 1.0), obs=X[2:])

        p, elbo = parameters(), PriorAsGuide_ELBO()
        exact = 5 * ((X[2] - p["m"]) ** 2 + 1 + (2 * p["l"]).exp() + math.log(2 * math.pi))
        actual = expectation(
            lambda draw: elbo.differentiable_loss(draw(lambda: model(p)), None), lambda: model(p), {}, ("mean", "z")
        )
        torch.testing.assert_close(value_and_gradients(actual, p), value_and_gradients(exact, p))

    @pytest.mark.parametrize("kl_weight", [0.0, 0.5, 1.0])
    def test_the_kl_of_a_normal_guide(self, kl_weight):
        def model(p):
            z = pyro.sample("z", dist.Normal(p["m"], 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=X[2])

        def guide(q):
            pyro.sample("z", dist.Normal(q["m"], q["l"].exp()))

        p, q = parameters(), parameters()
        elbo = PriorAsGuide_ELBO(kl_weight=kl_weight)
        kl = torch.distributions.kl_divergence(dist.Normal(q["m"], q["l"].exp()), dist.Normal(p["m"], 1.0))
        fit = ((X[2] - q["m"]) ** 2 + (2 * q["l"]).exp()) / 2 + math.log(2 * math.pi) / 2
        actual = expectation(
            lambda draw: elbo.differentiable_loss(lambda: model(p), draw(lambda: guide(q))),
            lambda: guide(q),
            {},
            ("z",),
        )
        expected = value_and_gradients(fit + kl_weight * kl, p, q)
        torch.testing.assert_close(value_and_gradients(actual, p, q), expected)


class TestImportanceBound:
    def model(self, p, scale=1.0, mask=True):
        size = round(2 * scale)
        with pyro.plate("data", size, subsample=None if size == 2 else torch.arange(2)), poutine.mask(mask=mask):
            b = pyro.sample("b", dist.Bernoulli(logits=p["m"]))
            pyro.sample("x", dist.Normal(b, p["l"].exp()), obs=X[:2])

    def exact(self, p, weights):
        """Σ over sequences of E[log ½ (w_1 + w_2)]."""
        bits = torch.tensor([0.0, 1.0], dtype=torch.float64)
        log_prior = dist.Bernoulli(logits=p["m"]).log_prob(bits)
        log_w = dist.Normal(bits, p["l"].exp()).log_prob(X[:2, None])
        pairs = torch.logaddexp(log_w.unsqueeze(-1), log_w.unsqueeze(-2)) - math.log(2.0)
        chances = (log_prior.unsqueeze(-1) + log_prior).exp()
        return -(weights * (chances * pairs).sum((-1, -2))).sum()

    @pytest.mark.parametrize("vectorize", [True, False])
    @pytest.mark.parametrize(
        ("options", "weights"),
        [
            ({}, [1.0, 1.0]),
            ({"scale": 10.0}, [10.0, 10.0]),
            ({"mask": torch.tensor([True, False])}, [1.0, 0.0]),
        ],
    )
    def test_equals_enumeration(self, options, weights, vectorize):
        def model():
            self.model(p, **options)

        def loss(draw):
            runs = iter(draw.values["b"])  # one run of both samples, or one of each
            looped = lambda: Drawn({"b": next(runs)})(model)()  # noqa: E731
            return elbo.differentiable_loss(draw(model) if vectorize else looped, None)

        p = parameters()
        elbo = PriorAsGuide_ELBO(2, vectorize_particles=vectorize, bound="importance", max_plate_nesting=1)
        exact = self.exact(p, torch.tensor(weights, dtype=torch.float64))
        actual = expectation(loss, model, {"b": (2, 2)})
        torch.testing.assert_close(value_and_gradients(actual, p), value_and_gradients(exact, p))

    def test_a_guide_that_equals_the_posterior_gives_log_p(self):
        def model():
            with pyro.plate("data", 3):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=X)

        def guide():
            with pyro.plate("data", 3):
                pyro.sample("z", dist.Normal(X / 2, 0.5**0.5))

        expected = -dist.Normal(0.0, 2.0**0.5).log_prob(X).sum().item()
        for bound in ("elbo", "importance"):
            for vectorize in (False, True):
                elbo = PriorAsGuide_ELBO(4, vectorize_particles=vectorize, bound=bound)
                assert elbo.loss(model, guide) == pytest.approx(expected, abs=1e-6)


class TestFactors:
    def model(self, p):
        z = pyro.sample("z", dist.Normal(p["m"], 1.0))
        pyro.factor("likelihood", -z.square())

    def guide(self, q):
        z = pyro.sample("z", dist.Normal(q["m"], 1.0))
        pyro.factor("f", q["l"] * z, has_rsample=True)

    def test_of_a_pathwise_sample(self):
        p, q, elbo = parameters(), parameters(), PriorAsGuide_ELBO()
        actual = expectation(
            lambda draw: elbo.differentiable_loss(lambda: self.model(p), draw(lambda: self.guide(q))),
            lambda: self.guide(q),
            {},
            ("z",),
        )
        kl = (q["m"] - p["m"]).square() / 2
        exact = q["m"].square() + 1 + kl + q["l"] * q["m"]
        torch.testing.assert_close(value_and_gradients(actual, p, q), value_and_gradients(exact, p, q))

    def test_of_a_sampler_without_pathwise_gradient(self):
        # a draw from outside Pyro, with its log-probability as the factor; Trace_ELBO leaves it out of the score's cost
        def model(p):
            b = pyro.sample("b", dist.Bernoulli(logits=p["m"]))
            pyro.sample("x", dist.Normal(b, p["l"].exp()), obs=X[2])

        def guide(q, draw):
            pyro.sample("b", dist.Delta(draw))
            pyro.factor("density", dist.Bernoulli(logits=q["m"]).log_prob(draw), has_rsample=False)

        p, q, elbo = parameters(), parameters(), PriorAsGuide_ELBO()
        exact, actual = torch.zeros(()).double(), torch.zeros(()).double()
        for draw in torch.tensor([0.0, 1.0], dtype=torch.float64):
            log_q = dist.Bernoulli(logits=q["m"]).log_prob(draw)
            log_p = dist.Bernoulli(logits=p["m"]).log_prob(draw) + dist.Normal(draw, p["l"].exp()).log_prob(X[2])
            exact = exact - log_q.exp() * (log_p - log_q)
            loss = elbo.differentiable_loss(lambda: model(p), lambda draw=draw: guide(q, draw))
            actual = actual + log_q.exp().detach() * loss
        torch.testing.assert_close(value_and_gradients(actual, p, q), value_and_gradients(exact, p, q))

    def test_without_has_rsample_is_refused_in_a_guide(self):
        def model():
            pyro.sample("z", dist.Normal(0.0, 1.0))

        def guide():
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.factor("f", 2 * z)

        with pytest.raises(ValueError, match=r"factor 'f' needs has_rsample; write pyro.factor"):
            PriorAsGuide_ELBO().differentiable_loss(model, guide)
