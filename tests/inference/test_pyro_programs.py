"""Any Pyro program with a full guide: plates, subsampling, scale and mask, as Trace_ELBO has them."""

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
    result = []
    for elbo in (
        Trace_ELBO(particles, vectorize_particles=particles > 1, max_plate_nesting=2),
        PriorAsGuide_ELBO(particles, max_plate_nesting=2),
    ):
        p, q = parameters(), parameters()
        pyro.set_rng_seed(3)
        loss = elbo.differentiable_loss(lambda p=p: program(p), lambda q=q: program(q, observe=False))
        loss.backward()
        result.append(torch.stack([loss.detach(), *(v.grad for v in (*p.values(), *q.values()))]))
    torch.testing.assert_close(result[1], result[0], rtol=1e-12, atol=1e-12)


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
        expected = 0.5 * (log_w.logsumexp(0) - torch.tensor(5.0).log()).sum()
        assert value == pytest.approx(float(expected))

    def test_shared_observed_sites_stay_outside_the_logarithm(self):
        def model(shared: bool):
            if shared:
                pyro.deterministic("note", torch.zeros(()))
                pyro.factor("penalty", torch.tensor(-2.0))
            with pyro.plate("data", 60, subsample=torch.arange(6)):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=X.float())

        for vectorized in (True, False):
            elbo = PriorAsGuide_ELBO(5, vectorize_particles=vectorized, bound="importance", max_plate_nesting=1)
            values = []
            for shared in (False, True):
                pyro.set_rng_seed(2)
                values.append(elbo.loss(model, None, shared))
            assert values[1] == pytest.approx(values[0] + 2.0)

    @pytest.mark.parametrize("vectorised", [True, False])
    def test_but_not_if_their_density_depends_on_the_samples(self, vectorised):
        def model():
            with pyro.plate("data", 2, dim=-1):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("x", dist.Normal(z, 0.5), obs=torch.full((2,), 1.5))
            pyro.sample("y", dist.Normal(z.sum(-1, keepdim=z.dim() > 1), 0.5), obs=torch.tensor(-3.0))

        elbo = PriorAsGuide_ELBO(4, vectorize_particles=vectorised, bound="importance")
        with pytest.raises(ValueError, match=r"density of 'y', observed outside their plate.*use bound=\"elbo\""):
            elbo.loss(model, None)
        values = []
        for bound in ("elbo", "importance"):  # of one sample they are the same
            pyro.set_rng_seed(0)
            values.append(PriorAsGuide_ELBO(bound=bound).loss(model, None))
        assert values[0] == pytest.approx(values[1])
