"""Any Pyro program with a full guide: plates, subsampling, scale and mask, as Trace_ELBO has them."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO

from noisin_pyro import PriorAsGuide_ELBO

X = torch.tensor([0.4, -1.0, 2.0, 0.1, 0.7, -0.2], dtype=torch.float64)


def parameters():
    values = {"m": 0.3, "l": 0.2}
    return {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in values.items()}


def nested(p, observe=True):
    outer, inner = pyro.plate("outer", 3, dim=-2), pyro.plate("inner", 2, dim=-1)
    with outer:
        a = pyro.sample("a", dist.Normal(p["m"], 1.0))
        with inner:
            b = pyro.sample("b", dist.Normal(a, p["l"].exp()))
            if observe:
                pyro.sample("x", dist.Normal(b, 1.0), obs=X.reshape(3, 2))


def subsampled(p, observe=True):
    mean = pyro.sample("mean", dist.Normal(p["m"], 1.0))
    with pyro.plate("data", 60, subsample=torch.arange(6)):
        local = pyro.sample("local", dist.Normal(mean, p["l"].exp()))
        if observe:
            pyro.sample("x", dist.Normal(local, 1.0), obs=X)


def scaled_and_masked(p, observe=True):
    with pyro.plate("data", 6), poutine.mask(mask=X > 0), poutine.scale(scale=0.3):
        z = pyro.sample("z", dist.Normal(p["m"], p["l"].exp()))
        if observe:
            pyro.sample("x", dist.Normal(z, 1.0), obs=X)


def discrete(p, observe=True):
    with pyro.plate("data", 6):
        b = pyro.sample("b", dist.Bernoulli(logits=p["m"]))
        z = pyro.sample("z", dist.Normal(b, p["l"].exp()))
        if observe:
            pyro.sample("x", dist.Normal(z, 1.0), obs=X)


PROGRAMS = [nested, subsampled, scaled_and_masked, discrete]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("particles", [1, 4])
def test_equals_trace_elbo_with_a_full_guide(program, particles):
    found = []
    for elbo in (
        Trace_ELBO(particles, vectorize_particles=particles > 1, max_plate_nesting=2),
        PriorAsGuide_ELBO(particles, max_plate_nesting=2),
    ):
        p, q = parameters(), parameters()
        pyro.set_rng_seed(3)
        loss = elbo.differentiable_loss(lambda p=p: program(p), lambda q=q: program(q, observe=False))
        loss.backward()
        found.append(torch.stack([loss.detach(), *(v.grad for v in (*p.values(), *q.values()))]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_a_guide_equals_trace_elbo_with_the_prior_in_expectation(program, assert_mean):
    reference = Trace_ELBO(20, vectorize_particles=True, max_plate_nesting=2)
    ours = PriorAsGuide_ELBO(20, max_plate_nesting=2)
    differences = []
    for _ in range(600):
        draws = []
        for elbo in (reference, ours):
            p = parameters()
            guide = (lambda p=p: program(p, observe=False)) if elbo is reference else None
            loss = elbo.differentiable_loss(lambda p=p: program(p), guide)
            loss.backward()
            draws.append(torch.stack([loss.detach(), *(v.grad for v in p.values())]))
        differences.append(draws[0] - draws[1])
    assert_mean(torch.stack(differences), 0.0)


def test_subsampling_scales_the_likelihood():
    p = parameters()

    def model(size, batch):
        with pyro.plate("data", size, subsample=torch.arange(batch)):
            pyro.sample("x", dist.Normal(p["m"], 1.0), obs=X[:batch])

    for bound in ("elbo", "importance"):
        small = PriorAsGuide_ELBO(2, bound=bound).loss(model, None, 6, 6)
        large = PriorAsGuide_ELBO(2, bound=bound).loss(model, None, 60, 6)
        assert large == pytest.approx(10 * small)


class TestImportanceBound:
    """log-mean-exp of each element of the observed sites' plates, with the scale outside."""

    @pytest.mark.slow
    def test_value_and_gradient_by_enumeration(self, assert_mean):
        # two discrete samples an element: E[log ½ Σ w] is a sum over four cases
        p = parameters()
        bits = torch.tensor([0.0, 1.0], dtype=torch.float64)
        log_prior = dist.Bernoulli(logits=p["m"]).log_prob(bits)
        log_likelihood = dist.Normal(bits, p["l"].exp()).log_prob(X[:, None])
        exact = torch.zeros(())
        for i, j in itertools.product(range(2), range(2)):
            log_mean = torch.logsumexp(log_likelihood[:, [i, j]], 1) - torch.tensor(2.0).log()
            exact = exact + (log_prior[i] + log_prior[j]).exp() * log_mean.sum()
        exact.backward()
        expected = torch.stack([-exact.detach(), -p["m"].grad, -p["l"].grad])

        def model(p):
            with pyro.plate("data", 6):
                b = pyro.sample("b", dist.Bernoulli(logits=p["m"]))
                pyro.sample("x", dist.Normal(b, p["l"].exp()), obs=X)

        for vectorised in (True, False):
            elbo, draws = (
                PriorAsGuide_ELBO(2, vectorize_particles=vectorised, bound="importance", max_plate_nesting=1),
                [],
            )
            for _ in range(3000):
                p = parameters()
                loss = elbo.differentiable_loss(lambda p=p: model(p), None)
                loss.backward()
                draws.append(torch.stack([loss.detach(), p["m"].grad, p["l"].grad]))
            assert_mean(torch.stack(draws), expected)

    def test_mask_and_inner_plates_and_scale(self):
        # by hand, from the same draws
        def model():
            with pyro.plate("outer", 3, subsample=torch.arange(3), dim=-2) as _, poutine.scale(scale=0.5):
                a = pyro.sample("a", dist.Normal(0.0, 1.0).expand([3, 1]))
                with pyro.plate("inner", 2, dim=-1), poutine.mask(mask=torch.tensor([True, False])):
                    pyro.sample("x", dist.Normal(a, 1.0), obs=X.reshape(3, 2).float())
                pyro.sample("y", dist.Normal(a, 1.0), obs=torch.zeros(3, 1))

        pyro.set_rng_seed(1)
        value = -PriorAsGuide_ELBO(5, bound="importance", max_plate_nesting=2).loss(model, None)
        pyro.set_rng_seed(1)
        with pyro.plate("num_particles_vectorized", 5, dim=-3):
            trace = poutine.trace(model).get_trace()
        law = dist.Normal(trace.nodes["a"]["value"], 1.0)
        log_w = law.log_prob(X.reshape(3, 2)[:, :1].float()) + law.log_prob(torch.zeros(()))
        by_hand = 0.5 * (log_w.logsumexp(0) - torch.tensor(5.0).log()).sum()
        assert value == pytest.approx(float(by_hand))

    def test_shared_observed_sites_stay_outside_the_logarithm(self):
        def model(shared: bool):
            if shared:
                pyro.deterministic("note", torch.zeros(()))
                pyro.factor("penalty", torch.tensor(-2.0))
            with pyro.plate("data", 60, subsample=torch.arange(6)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=X.float())

        for vectorised in (True, False):
            elbo = PriorAsGuide_ELBO(5, vectorize_particles=vectorised, bound="importance", max_plate_nesting=1)
            values = []
            for shared in (False, True):
                pyro.set_rng_seed(2)
                values.append(elbo.loss(model, None, shared))
            assert values[1] == pytest.approx(values[0] + 2.0)


def test_factor_in_the_guide_enters_the_elbo():
    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    def guide():
        pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.factor("f", torch.tensor(3.0), has_rsample=True)

    for elbo in (Trace_ELBO(), PriorAsGuide_ELBO()):
        assert float(elbo.loss(model, guide)) == pytest.approx(3.0)
