"""Every family, form and trajectory as a distribution, by the documented contracts of torch and Pyro.

Sources: ``torch.distributions.Distribution`` (shapes, ``expand``, ``rsample``, ``support``); Pyro's
``TorchDistributionMixin`` (``mask``, ``to_event``, ``expand_by``, ``infer_shapes``) and page on tensor shapes (plates).
"""

import copy
import math
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints

from noisin_pyro.models import Mask, NoisyPath, NoisyRNN
from noisin_pyro.noise import describe, get
from noisin_pyro.recurrence.transition import FixedMeans

BATCH, UNITS, STEPS, GAMMA = 4, 3, 2, 0.4
NAMES = [f"{entry.name}:{entry.form}" for entry in describe()]
FAMILIES = {name: get(name) for name in NAMES}
PATHS = [f"{name}:additive" for name in ("gaussian", "gamma", "bernoulli", "poisson", "categorical", "dirichlet")]
PATHS += [f"{name}:multiplicative" for name in ("gaussian", "gamma", "exponential", "bernoulli", "poisson")]
PATHS += ["gamma:native", "beta:native", "poisson:native"]

Make = Callable[[torch.dtype], Any]


def means(dtype: torch.dtype) -> torch.Tensor:
    """In (0, 1), as native families need it."""
    return torch.linspace(0.2, 0.8, BATCH * UNITS, dtype=torch.float64).reshape(BATCH, UNITS).to(dtype)


def make_state(name: str, dtype: torch.dtype) -> Any:
    sign = torch.tensor([1.0, -1.0, 1.0], dtype=dtype) if FAMILIES[name].form == "multiplicative" else 1.0
    return FAMILIES[name](sign * means(dtype), GAMMA)


def make_law(name: str, dtype: torch.dtype) -> Any:
    return FAMILIES[name].law(torch.tensor(GAMMA, dtype=dtype), UNITS).expand(torch.Size([BATCH]))


def make_path(name: str, cell: str, lengths: torch.Tensor | None, dtype: torch.dtype) -> Any:
    torch.manual_seed(1)
    with pyro.settings.context(module_local_params=True):  # tensors of Pyro's store cannot be pickled
        rnn = NoisyRNN(2, UNITS, cell=cell, noise=name, spread=GAMMA)
        x, z, c = torch.randn(BATCH, STEPS, 2), torch.rand(1, BATCH, UNITS), torch.rand(1, BATCH, UNITS)
        state = (z.to(dtype), c.to(dtype)) if cell == "lstm" else z.to(dtype)
        return poutine.trace(rnn.to(dtype)).get_trace(x.to(dtype), state, lengths).nodes["z_1"]["fn"]


def make_output(name: str, dtype: torch.dtype) -> NoisyPath:
    """Noise on the output alone."""
    mean = means(dtype).unsqueeze(-2).expand(BATCH, STEPS, UNITS)
    return NoisyPath(FixedMeans(mean), FAMILIES[name], torch.tensor([[GAMMA]], dtype=dtype))


MAKERS: dict[str, tuple[str, Make]] = {
    **{f"z-{name}": (name, partial(make_state, name)) for name in NAMES},
    **{f"law-{name}": (name, partial(make_law, name)) for name in NAMES if FAMILIES[name].has_innovations},
    **{f"path-{name}": (name, partial(make_path, name, "sigmoid", None)) for name in PATHS},
    **{
        f"path-{cell}-{name}": (name, partial(make_path, name, cell, lengths))
        for cell, name, lengths in [
            ("lstm", "gaussian:additive", None),
            ("lstm", "gamma:additive", torch.tensor([2, 0, 1, 2])),
            ("gru", "bernoulli:multiplicative", torch.tensor([1, 2, 2, 0])),
            ("tanh", "gamma:multiplicative", torch.tensor([2, 1, 0, 2])),
        ]
    },
    **{f"output-{name}": (name, partial(make_output, name)) for name in ("gaussian:additive", "beta:native")},
    "mask": ("bernoulli:multiplicative", lambda dtype: Mask(0.4, torch.ones(BATCH, UNITS, dtype=dtype))),
}
every = pytest.mark.parametrize("name, make", MAKERS.values(), ids=MAKERS)
both = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


@both
@every
def test_shapes_and_dtypes(name: str, make: Make, dtype: torch.dtype) -> None:
    d = make(dtype)
    assert d.batch_shape == (BATCH,) and d.event_dim == len(d.event_shape) and d.event_shape[-1] == UNITS
    for sample_shape in ((), (5,), (5, 2), (0,)):
        z, shape = d.sample(sample_shape), torch.Size(sample_shape)
        assert z.shape == d.shape(shape) == shape + d.batch_shape + d.event_shape
        log_prob = d.log_prob(z)
        assert log_prob.shape == shape + d.batch_shape and log_prob.isfinite().all()
        assert z.dtype == log_prob.dtype == dtype and not z.requires_grad
    if not isinstance(d, NoisyPath):
        assert d.mean.shape == d.variance.shape == d.shape() and d.mean.dtype == d.variance.dtype == dtype


@every
def test_log_prob_broadcasts_values_and_batches(name: str, make: Make) -> None:
    d = make(torch.float64)
    z = d.sample((5,))
    wide = d.expand((5, BATCH))
    torch.testing.assert_close(wide.log_prob(z), d.log_prob(z))
    # a value with fewer batch dimensions than the distribution stands for all of them
    torch.testing.assert_close(wide.log_prob(z[0]), d.log_prob(z[0]).expand(5, BATCH))
    torch.testing.assert_close(d.expand((5, 1, BATCH)).log_prob(z), d.log_prob(z).expand(5, 5, BATCH))


@every
def test_expand(name: str, make: Make) -> None:
    d = make(torch.float64)
    for shape in ((BATCH,), (2, BATCH), (5, 2, BATCH)):
        wide = d.expand(torch.Size(shape))
        assert type(wide) is type(d) and wide.batch_shape == shape and wide.event_shape == d.event_shape
        assert wide.has_rsample == d.has_rsample
        z = wide.sample()
        assert z.shape == wide.shape()
        torch.testing.assert_close(wide.log_prob(z), d.log_prob(z))
    assert d.expand_by((2,)).batch_shape == (2, BATCH)
    assert wide.expand((7, 5, 2, BATCH)).sample().shape[:4] == (7, 5, 2, BATCH)
    with pytest.raises((RuntimeError, ValueError)):
        d.expand((BATCH + 1,))


@every
def test_draws_of_an_expanded_distribution_are_independent(name: str, make: Make) -> None:
    d = make(torch.float64)
    for z in (d.expand((40, BATCH)).sample(), d.sample((40,))):
        assert not (z == z[0]).all()
    assert not (d.sample((40,)) == z).all()


@every
def test_masks_and_events(name: str, make: Make) -> None:
    d = make(torch.float64)
    z = d.sample((2,))
    log_prob, mask = d.log_prob(z), torch.tensor([True, False, True, False])
    torch.testing.assert_close(d.mask(mask).log_prob(z), torch.where(mask, log_prob, 0.0))
    assert (d.mask(False).log_prob(z) == torch.zeros_like(log_prob)).all()
    joint = d.to_event(1)
    assert (joint.batch_shape, joint.event_dim) == ((), d.event_dim + 1)
    torch.testing.assert_close(joint.log_prob(z), log_prob.sum(-1))
    assert joint.sample((3,)).shape == (3, *d.shape())


@every
def test_a_site_in_plates(name: str, make: Make) -> None:
    def model() -> Any:
        with pyro.plate("particles", 3, dim=-2), pyro.plate("batch", BATCH, dim=-1):
            return pyro.sample("z", make(torch.float64))

    trace = poutine.trace(model).get_trace()
    trace.compute_log_prob()
    d, site = make(torch.float64), trace.nodes["z"]
    assert site["log_prob"].shape == (3, BATCH)
    given = poutine.trace(poutine.condition(model, {"z": site["value"][0]})).get_trace()
    given.compute_log_prob()
    torch.testing.assert_close(given.nodes["z"]["log_prob"], d.log_prob(site["value"][0]).expand(3, BATCH))


@every
def test_copies(name: str, make: Make) -> None:
    d = make(torch.float64)
    d.sample()
    if d.has_rsample:
        d.rsample()
    z = d.sample((2,))
    for other in (copy.copy(d), copy.deepcopy(d), pickle.loads(pickle.dumps(d))):
        assert type(other) is type(d) and other.shape() == d.shape() and repr(other) == repr(d)
        torch.testing.assert_close(other.log_prob(z), d.log_prob(z))
        torch.manual_seed(3)
        expected = d.sample()
        torch.manual_seed(3)
        torch.testing.assert_close(other.sample(), expected)


@every
def test_rsample_exists_where_has_rsample_says_so(name: str, make: Make) -> None:
    d = make(torch.float64)
    assert d.has_rsample == FAMILIES[name].has_rsample
    if d.has_rsample:
        torch.manual_seed(3)
        z = d.rsample((2,))
        torch.manual_seed(3)
        torch.testing.assert_close(z, d.sample((2,)), rtol=0, atol=0)
    else:
        with pytest.raises(NotImplementedError):
            d.rsample()
    assert d((2,)).shape == d.shape((2,))


@both
@every
def test_support(name: str, make: Make, dtype: torch.dtype) -> None:
    d = make(dtype)
    try:
        support = d.support
    except ValueError as error:
        assert isinstance(d, NoisyPath) and ("no guide" in str(error) or "padded steps" in str(error))
        return
    z = d.sample((50,))
    assert support.event_dim == d.event_dim and support.is_discrete == FAMILIES[name].discrete
    assert support.check(z).shape == (50, BATCH) and support.check(z).all()
    if support not in (constraints.real_vector, constraints.independent(constraints.real, 2)) and not isinstance(
        support, constraints.independent
    ):
        assert (d.log_prob(z - 77.7) == -math.inf).all() and not support.check(z - 77.7).any()


@pytest.mark.parametrize("name", NAMES)
def test_infer_shapes(name: str) -> None:
    family = FAMILIES[name]
    for shape in ((), (1,), (5, 1, 1), (5, BATCH, 1)):
        spread = torch.full(shape, GAMMA)
        d = family(means(torch.float32), spread)
        arguments = {"mean": (BATCH, UNITS), "spread": shape}
        if family.form != "native" or family.has_innovations:
            arguments = {"mean": (BATCH, UNITS), "scale": shape, "law": (UNITS,)}
        assert type(d).infer_shapes(**arguments) == (d.batch_shape, d.event_shape)
        gamma = spread.reshape(*shape[:-1], 1, 1)  # of all steps
        path = NoisyPath(FixedMeans(means(torch.float32).unsqueeze(-2)), family, gamma)
        inferred = NoisyPath.infer_shapes(transition=(BATCH, 1, UNITS), spread=gamma.shape)
        assert inferred == (path.batch_shape, path.event_shape)
    with pytest.raises(ValueError, match=r"transition=.* is required, got spread"):
        NoisyPath.infer_shapes(spread=())


@every
def test_single_and_double_precision_agree(name: str, make: Make) -> None:
    double, single = make(torch.float64), make(torch.float32)
    z = double.sample((20,))
    # rounding z moves its density by its slope: 1e-3 is 10⁴ roundings at a scale of 0.1
    torch.testing.assert_close(single.log_prob(z.float()).double(), double.log_prob(z), rtol=1e-3, atol=1e-3)


@every
def test_gradient_of_log_prob_in_the_value(name: str, make: Make) -> None:
    """By central differences, where the density has a gradient."""
    if FAMILIES[name].discrete or FAMILIES[name].joint:
        return
    d = make(torch.float64)
    z = d.sample().requires_grad_()
    log_prob = d.log_prob(z).sum()
    (gradient,) = torch.autograd.grad(log_prob, z)
    direction, step = torch.randn_like(z), 1e-6
    with torch.no_grad():
        ahead, behind = (d.log_prob(z + sign * step * direction).sum() for sign in (1, -1))
    if not (ahead.isfinite() and behind.isfinite()):  # over an edge of the support
        pytest.fail("choose another seed: the step leaves the support")
    torch.testing.assert_close((gradient * direction).sum(), (ahead - behind) / (2 * step), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_log_prob_in_mean_and_spread(name: str) -> None:
    """By central differences; a lattice of values moves with both, except native poisson's with the mean."""
    family = FAMILIES[name]
    h = means(torch.float64)
    gamma = torch.tensor(GAMMA, dtype=torch.float64)
    z = family(h, GAMMA).sample()

    def f(h: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        return family(h, gamma).log_prob(z).sum()

    arguments = [h] if name == "poisson:native" else [] if family.discrete or family.joint else [h, gamma]
    for argument in arguments:
        leaf = argument.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(f(*(leaf if a is argument else a for a in (h, gamma))), leaf)
        step = 1e-6
        ahead, behind = (f(*(a + s * step if a is argument else a for a in (h, gamma))) for s in (1, -1))
        torch.testing.assert_close(gradient.sum(), (ahead - behind) / (2 * step), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in PATHS if FAMILIES[name].has_innovations])
def test_pathwise_gradient_of_a_trajectory(name: str) -> None:
    """Autograd through a draw against central differences on the same noise, in the weights that feed it back."""
    path = make_path(name, "tanh" if FAMILIES[name].mean_range[0] < 0 else "sigmoid", None, torch.float64)
    noise, weight = path.innovation_law().sample(), path.transition.weights.hh
    (gradient,) = torch.autograd.grad(path.transport(noise).sin().sum(), weight)
    direction, step = torch.randn_like(weight), 1e-6
    with torch.no_grad():
        weight += step * direction
        ahead = path.transport(noise).sin().sum()
        weight -= 2 * step * direction
        behind = path.transport(noise).sin().sum()
    torch.testing.assert_close((gradient * direction).sum(), (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-7)
