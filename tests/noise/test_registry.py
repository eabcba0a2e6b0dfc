"""Names, forms and options; user-defined families; the published paper's γ."""

import math
from typing import Any, cast

import pyro.distributions as dist
import pytest
import torch

from noisin_pyro.noise import Family, Standardized, check, describe, families, from_published, get, register, registry

NAMES = ["bernoulli", "beta", "categorical", "chi2", "dirichlet", "exponential"]
NAMES += ["gamma", "gaussian", "gumbel", "laplace", "logistic", "poisson"]


@pytest.fixture
def scratch(monkeypatch):
    """A copy of the registry that the test may write to."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))


def test_the_registry_is_complete():
    assert families() == NAMES
    for name in NAMES:
        native = ["native"] if name in ("gamma", "beta", "poisson") else []
        assert [info.form for info in describe(name)] == ["additive", "multiplicative", *native]
        assert all(info.law and info.make().form == info.form for info in describe(name))
        assert get(name).form == "additive" and get(name).name == name
    assert len(describe()) == 27


def test_ways_to_name_a_family():
    assert str(get("gamma:multiplicative")) == str(get("gamma", form="multiplicative")) == "gamma:multiplicative"
    assert str(get("gamma:native", form="native")) == "gamma:native"
    family = get("beta")
    assert get(family) is family


@pytest.mark.parametrize(
    "name, option, default, bound",
    [
        ("gamma", "concentration", 2.0, lambda k: -math.sqrt(k)),
        ("chi2", "degrees", 3.0, lambda nu: -math.sqrt(nu / 2)),
        ("beta", "concentration", 2.0, lambda a: -math.sqrt(2 * a + 1)),
        ("poisson", "rate", 4.0, lambda rate: -math.sqrt(rate)),
    ],
)
def test_shape_options_change_the_law(name, option, default, bound):
    """Checked by the smallest value of the standardized law."""
    for shape, value in [({}, default), ({option: 5.5}, 5.5)]:
        law: Any = get(name, **shape).law(torch.tensor(0.3, dtype=torch.float64), 2)
        smallest = torch.full((2,), bound(value), dtype=torch.float64)
        assert law.support.check(smallest + 1e-9 * (name != "poisson")) and not law.support.check(smallest - 0.01)
        assert law.log_prob(smallest - 0.01).item() == -math.inf < law.log_prob(smallest + 1e-9)


def test_dirichlet_concentration_changes_the_law():
    flat, peaked = (get("dirichlet", concentration=a).law(torch.tensor(0.3), 3) for a in (1.0, 50.0))
    assert flat.log_prob(flat.mean) < peaked.log_prob(peaked.mean)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: get("gausian"), r"noise must be one of bernoulli, beta, .*, got 'gausian'; did you mean 'gaussian'\?"),
        (lambda: get("zzz"), "noise must be one of bernoulli, .*, got 'zzz'$"),
        (lambda: get("gamma:foo"), 'gamma noise has no form "foo"; it has additive, multiplicative, native'),
        (lambda: get("gaussian", form="native"), 'no form "native"; it has additive, multiplicative'),
        (lambda: get("gamma:native", form="additive"), "contradict"),
        (
            lambda: get("gamma", shape=2.0),
            'gamma noise in its additive form has no option "shape"; it has concentration',
        ),
        (lambda: get("gaussian", scale=2.0), "it has none"),
        (lambda: get("gamma:multiplicative", concentration=2.0), 'no option "concentration"; it has none'),
        (lambda: get("gamma", concentration=-1.0), "concentration: expected a positive number, got -1.0"),
        (lambda: get("poisson", rate=math.nan), "rate: expected a positive number, got nan"),
        (lambda: get("chi2", degrees=cast(float, "three")), "degrees: expected a positive number, got 'three'"),
        (lambda: get(get("gamma"), form="native"), "form: not allowed with <noise family gamma>"),
        (lambda: get(get("gamma"), concentration=3.0), "concentration: not allowed with <noise family gamma>"),
        (lambda: get(cast(str, 3)), "must be the name of a family or a Family, got 3"),
        (lambda: describe("gama"), "did you mean 'gamma'"),
    ],
)
def test_wrong_names_forms_and_options(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- user-defined families ------------------------------------------------------------------------------------------


def test_register_a_law(scratch):
    family = register("uniform", lambda zeros: dist.Uniform(zeros, 1.0))
    assert "uniform" in families() and str(family) == str(get("uniform")) and check(family).passed
    law = get("uniform:multiplicative").law(torch.tensor(0.3, dtype=torch.float64), 2)
    density = torch.tensor(-2 * math.log(2 * math.sqrt(3)), dtype=torch.float64)
    torch.testing.assert_close(law.log_prob(law.sample()), density)
    assert check("uniform").passed and check("uniform:multiplicative").passed


def test_register_a_law_with_options(scratch):
    register("student", lambda zeros, degrees=9.0: dist.StudentT(zeros + degrees))
    assert describe("student")[0].options == {"degrees": 9.0}
    assert check(get("student:multiplicative", degrees=12.0)).passed
    with pytest.raises(ValueError, match="finite mean and positive, finite variance"):
        get("student", degrees=1.5)
    with pytest.raises(ValueError, match="it has degrees"):
        get("student", df=3.0)


def test_register_a_discrete_law(scratch):
    register("coin-run", lambda zeros: dist.Geometric(zeros + 0.4))
    family = get("coin-run")
    assert family.discrete and check(family).passed
    d = family(torch.tensor([0.2]), 0.5)
    assert d.log_prob(d()).exp() <= 0.4


def test_register_a_joint_law(scratch):
    register("correlated", lambda zeros: dist.MultivariateNormal(zeros, torch.eye(len(zeros)) + 0.5))
    d = get("correlated")(torch.zeros(3), 0.5)
    assert d.event_shape == (3,) and d.log_prob(d()).isfinite()


def test_register_a_subclass(scratch):
    class Uniform(Family):
        """Uniform noise"""

        name = "uniform"

        def law(self, spread, size):
            return Standardized(dist.Uniform(spread.new_zeros(size), 1.0))

    assert isinstance(register("uniform", Uniform), Uniform)
    assert describe("uniform")[0].law == "Uniform noise"
    assert check("uniform").passed


def test_a_subclass_may_return_any_law():
    class Normal(Family):
        name = "mine"
        form = "multiplicative"

        def law(self, spread, size):
            return dist.Normal(spread.new_zeros(size), 1.0).to_event(1)

    h, z = torch.tensor([0.4, -0.7]), torch.tensor([0.1, 0.3])
    torch.testing.assert_close(Normal()(h, 0.3).log_prob(z), get("gaussian:multiplicative")(h, 0.3).log_prob(z))
    assert Normal()(h, 0.3).support is dist.constraints.real_vector
    assert check(Normal()).passed


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ("gamma", lambda zeros: dist.Uniform(zeros, 1.0)),
            "is already registered; choose another name, or pass replace",
        ),
        (("a:b", lambda zeros: dist.Uniform(zeros, 1.0)), "without a colon"),
        (("", lambda zeros: dist.Uniform(zeros, 1.0)), "non-empty"),
        (("new", 3.0), "expected a function of a tensor of zeros, or a subclass of Family, got 3.0"),
        (("new", lambda zeros: dist.Uniform(0.0, 1.0)), "got a Uniform of batch shape"),
        (("new", lambda zeros: zeros), "got a torch.float64 tensor"),
        (("new", lambda zeros: 3), "got 3"),
        (("new", lambda zeros: dist.Cauchy(zeros, 1.0)), "finite mean"),
    ],
)
def test_invalid_registrations(scratch, arguments, message):
    with pytest.raises(ValueError, match=message):
        register(*arguments)
    assert families() == NAMES


def test_replace(scratch):
    register("gamma", lambda zeros: dist.Uniform(zeros, 1.0), replace=True)
    assert [info.form for info in describe("gamma")] == ["additive", "multiplicative"]


# ---- the published paper's γ ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, value, spread",
    [
        ("gaussian", 1.10, 1.10),
        ("logistic", 1.06, 1.06),
        ("laplace", 1.06, 1.06),
        ("gamma", 1.06, 1.06),
        ("gumbel", 1.06, 1.06),
        ("beta", 1.07, 1.0344),
        ("chi2", 1.50, 1.2247),
        ("bernoulli", 0.41, 1.1996),
        ("bernoulli", 0.33, 1.4249),
    ],
)
def test_from_published(name, value, spread):
    assert from_published(name, value) == pytest.approx(spread, abs=1e-4)


def test_keep_probability_is_that_of_dropout():
    d = get("bernoulli:multiplicative")(torch.ones(1, dtype=torch.float64), from_published("bernoulli", 0.41))
    assert d.log_prob(torch.zeros(1, dtype=torch.float64)).exp().item() == pytest.approx(0.59)


def test_from_published_invalid_arguments():
    with pytest.raises(ValueError, match=r"no γ for 'poisson'; it has gaussian"):
        from_published("poisson", 1.0)
    with pytest.raises(ValueError, match=r"keep probability between 0 and 1 for bernoulli, got 1\.2"):
        from_published("bernoulli", 1.2)
    with pytest.raises(ValueError, match="positive number for beta, got -1"):
        from_published("beta", -1)
