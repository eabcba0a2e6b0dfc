"""Shapes and supports of the laws of ε and z follow Pyro's conventions."""

import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import biject_to

from noisin_pyro.noise import Standardized, get

SPREADS = [(), (1,), (3,), (5, 1, 1), (5, 4, 1)]


@pytest.mark.parametrize("shape", SPREADS, ids=str)
def test_spread_broadcasts_against_the_mean(family, shape):
    h = torch.full((4, 3), 0.5)
    spread = torch.linspace(0.2, 0.6, max(1, math.prod(shape))).reshape(shape)
    d = family(h, spread)
    batch = torch.broadcast_shapes((4, 3), shape)[:-1]
    assert d.batch_shape == batch and d.event_shape == (3,) and d.event_dim == 1
    assert torch.equal(d.mean, h.expand(*batch, 3)) and d.variance.shape == (*batch, 3)
    z = d.sample((2,))
    assert z.shape == (2, *batch, 3) and d.log_prob(z).shape == (2, *batch)
    assert d.log_prob(z[0]).shape == batch


@pytest.mark.parametrize("shape", SPREADS, ids=str)
def test_law_broadcasts_with_the_spread(with_innovations, shape):
    spread = torch.linspace(0.2, 0.6, max(1, math.prod(shape))).reshape(shape)
    law = with_innovations.law(spread, 3)
    depends_on_spread = getattr(with_innovations, "depends_on_spread", False)
    assert law.batch_shape == (torch.broadcast_shapes(shape, (3,))[:-1] if depends_on_spread else ())
    path = law.expand((5, 4, 6) if len(shape) < 3 else (5, 4)).to_event(1)
    eps = path.rsample((2,))
    assert eps.shape == (2, *path.batch_shape, *path.event_shape)
    assert path.log_prob(eps).shape == (2, *path.batch_shape)
    assert path.support.check(eps).all()


def test_expand_mask_to_event(family):
    h = torch.full((4, 1, 3), 0.5)
    d = family(h, 0.3)
    wide = d.expand((2, 4, 6))
    z = wide()
    assert z.shape == wide.shape() == (2, 4, 6, 3)
    assert torch.equal(wide.mean, h.expand(2, 4, 6, 3)) and wide.support.check(z).all()
    torch.testing.assert_close(wide.log_prob(z), d.log_prob(z))
    torch.testing.assert_close(wide.to_event(1).log_prob(z), d.log_prob(z).sum(-1))
    mask = torch.tensor([True, False] * 3)
    torch.testing.assert_close(wide.mask(mask).log_prob(z), d.log_prob(z) * mask)
    assert wide.expand_by((7,)).shape() == (7, 2, 4, 6, 3)
    assert not (z[0] == z[1]).all()


def test_as_a_site_in_a_plate(family):
    def model():
        with pyro.plate("particles", 7, dim=-2), pyro.plate("sequences", 4, dim=-1):
            return pyro.sample("z", family(torch.full((4, 3), 0.5), 0.3))

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    site: Any = trace.nodes["z"]
    assert site["value"].shape == (7, 4, 3) and site["log_prob"].shape == (7, 4)


def test_supports_of_innovations(with_innovations):
    family = with_innovations
    law = family.law(torch.tensor(0.5, dtype=torch.float64), 3)
    eps = law.sample((500,))
    assert law.support.event_dim == 1 and law.support.check(eps).all()
    assert law.support.is_discrete == family.discrete
    if family.name in ("gaussian", "laplace", "logistic", "gumbel"):
        assert law.support is dist.constraints.real_vector
    else:
        assert not law.support.check(eps - 50).any()
    if not family.discrete and family.name != "dirichlet":
        bijection = biject_to(law.support)
        torch.testing.assert_close(bijection(bijection.inv(eps)), eps)


def test_supports_of_z(family):
    h = torch.tensor([0.4, 0.5, 0.7], dtype=torch.float64)
    d = family(h, 0.5)
    assert d.support.event_dim == 1 and d.support.is_discrete == family.discrete
    assert d.support.check(d.sample((500,))).all()
    if family.form == "native":
        assert not d.support.check(torch.tensor([-0.5, 0.5, 0.5]))


def test_density_of_innovations_and_of_z_differ_by_the_scale(with_innovations):
    family = with_innovations
    h, spread = torch.tensor([0.4, 0.5, 0.7], dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    law, scale = family.law(spread, 3), family.scale(h, spread).expand(3)
    eps = law.sample((9,))
    jacobian = 0.0 if family.discrete else scale[: 2 if family.name == "dirichlet" else 3].log().sum()
    torch.testing.assert_close(family(h, spread).log_prob(h + scale * eps) + jacobian, law.log_prob(eps))


def test_standardizes_any_law():
    torch.manual_seed(2)
    tril = torch.tensor([[2.0, 0.0], [1.0, 0.5]], dtype=torch.float64)
    raw = dist.MultivariateNormal(torch.tensor([3.0, -1.0], dtype=torch.float64), scale_tril=tril)
    law = Standardized(raw)
    unit = raw.variance.sqrt()
    eps = law.rsample((6,))
    torch.testing.assert_close(law.log_prob(eps), raw.log_prob(raw.mean + unit * eps) + unit.log().sum())
    wrapped = Standardized(dist.LogNormal(torch.zeros(3), 0.5).to_event(1)).expand((4,))
    assert wrapped.shape() == (4, 3) and wrapped.support.check(wrapped()).all()
    below = Standardized(_Below())
    assert below.support.check(below()).all() and below.log_prob(below.mean + 9).item() == -math.inf


class _Below(dist.Uniform):
    """A law whose support states an upper bound only."""

    def __init__(self):
        super().__init__(torch.zeros(2), 1.0)

    @property
    def support(self):
        return dist.constraints.less_than(1.0)


def test_multiplicative_support_follows_the_sign_of_the_mean():
    d: Any = get("exponential:multiplicative")(torch.tensor([1.0, -1.0]), 0.5)
    assert d.support.check(torch.tensor([2.0, -2.0])) and not d.support.check(torch.tensor([2.0, 2.0]))
