"""Densities in the units of the data, of the values that are observed."""

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro.data import Sequences, from_arrays
from noisin_pyro.models import EMISSIONS, Emission, ModuleEmission, Scaled

LOC, SCALE = (100.0, -3.0), (20.0, 0.5)
SAMPLES = {"mean": None, "ensemble": 5, "importance": 5, "particle-filter": 8}


def model(name: str = "gaussian", *scaling: Any, features: int = 4) -> nz.SequenceModel:
    torch.manual_seed(0)
    return nz.SequenceModel(nz.NoisyRNN(features, 3), Scaled(EMISSIONS[name](3, 2).double(), *scaling)).double()


def test_the_density_is_that_of_the_scaled_normal() -> None:
    emission = model("gaussian", LOC, SCALE).emission
    z, x = torch.randn(2, 4, 3).double(), 50 * torch.randn(2, 4, 2).double()
    law, mean = emission(z), emission.emission.read_out(z).detach().numpy() * SCALE + LOC
    np.testing.assert_allclose(law.log_prob(x).detach(), norm.logpdf(x, mean, SCALE).sum(-1))
    np.testing.assert_allclose(law.mean.detach(), mean)
    np.testing.assert_allclose(law.variance.detach(), np.broadcast_to(np.square(SCALE), mean.shape))
    x[0, 0, 1] = x[1, 2, 0] = x[1, 3] = math.nan
    expected = np.nansum(norm.logpdf(x, mean, SCALE), -1)
    np.testing.assert_allclose(law.log_prob(x).detach(), expected)
    pyro.set_rng_seed(0)
    draws = law.sample((4000,))
    errors = (draws.mean(0) - law.mean) / (law.variance / 4000).sqrt()
    assert errors.abs().max() < 5  # 16 normal variables: a false alarm in 10^5 runs


@pytest.mark.parametrize("method", SAMPLES)
def test_scores_in_units_differ_by_the_scales(method: str) -> None:
    """Also with single missing values, and with the noise of a particle filter."""
    rng = np.random.default_rng(0)
    values = [rng.normal(LOC, SCALE, (length, 2)) for length in (6, 4)]
    values[0][2, 0] = values[1][1] = math.nan
    series = from_arrays(values, dtype=torch.float64)
    layout = series.layout.value_scaling
    standard = from_arrays([(v - layout.loc) / layout.scale for v in values], scaling="none", dtype=torch.float64)
    results = []
    for data, scaling in ((series, (layout.loc, layout.scale)), (standard, ())):
        pyro.set_rng_seed(1)
        results.append(
            nz.evaluate(model("gaussian", *scaling), data, method, num_samples=SAMPLES[method], log_probs=True)
        )
    ours, plain = results
    assert ours.num_steps == plain.num_steps == 9
    observed = ~series.values.isnan()
    jacobian = (observed * torch.tensor(layout.scale).double().log()).sum(-1)
    torch.testing.assert_close(plain.log_probs - ours.log_probs, jacobian)


def test_missing_values_and_dropped_columns_score_alike() -> None:
    values = np.random.default_rng(0).normal(LOC, SCALE, (8, 2))
    hidden = values.copy()
    hidden[:, 1] = math.nan
    inputs = torch.randn(1, 8, 4).double()
    with pyro.settings.context(module_local_params=True):  # in Pyro's store both emissions would share their scales
        both, first = model("gaussian", LOC, SCALE), model("gaussian", LOC, SCALE)
        first.emission = Scaled(EMISSIONS["gaussian"](3, 1).double(), LOC[:1], SCALE[:1])
        for name in ("weight", "bias"):
            getattr(first.emission.linear, name).data.copy_(getattr(both.emission.linear, name).data[:1])
        losses = [
            nz.PriorAsGuide_ELBO()(nz.noise_off(m))(inputs, torch.from_numpy(x)[None])
            for m, x in ((both, hidden), (first, values[:, :1]))
        ]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("guide", [None, "smoothing"])
def test_gradients_are_finite_and_ignore_missing_values(guide: str | None) -> None:
    values = [np.array([[1.0, 2.0], [math.nan, 3.0], [math.nan, math.nan], [2.0, math.nan], [0.0, 1.0]])]
    for name in ("poisson", "gaussian"):
        series = from_arrays(values, dtype=torch.float64)
        program = model(name, *((LOC, SCALE) if name == "gaussian" else ()))
        proposal = nz.guides.get(guide, program) if guide else None
        bound = nz.PriorAsGuide_ELBO()(program, proposal)
        pyro.set_rng_seed(0)
        bound(series.inputs, series.targets, mask=series.mask).backward()
        parameters = [*program.parameters(), *(proposal.parameters() if proposal else ())]
        assert all(p.grad is None or p.grad.isfinite().all() for p in parameters)
        assert sum(float(p.grad.abs().sum()) for p in parameters if p.grad is not None) > 0
        assert math.isfinite(nz.evaluate(program, series, "importance", 5, guide=proposal).nats_per_step)


class Coupled(Emission):
    def forward(self, z: Tensor) -> Any:
        return dist.MultivariateNormal(self.read_out(z), torch.eye(2).to(z))


class Positive(Emission):
    def forward(self, z: Tensor) -> Any:
        return dist.LogNormal(self.read_out(z), 1.0).to_event(1)


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 2)

    def forward(self, z: Tensor) -> Any:
        return dist.Laplace(self.linear(z), 1.0).to_event(1)


def test_values_that_are_not_independent_need_whole_steps() -> None:
    program = nz.SequenceModel(nz.NoisyRNN(4, 3), Scaled(Coupled(3, 2), LOC, SCALE)).double()
    values = np.random.default_rng(0).normal(size=(5, 2))
    assert math.isfinite(nz.evaluate(program, from_arrays([values], dtype=torch.float64)).nats_per_step)
    values[1, 0] = math.nan
    with pytest.raises(ValueError, match="single missing values, which MultivariateNormal cannot leave out"):
        nz.evaluate(program, from_arrays([values], dtype=torch.float64))


def test_supports() -> None:
    law = Scaled(Positive(3, 2))(torch.zeros(1, 1, 3))
    assert law.support.check(torch.tensor([[1.0, math.nan], [-1.0, 1.0]])).tolist() == [True, False]
    assert law.log_prob(torch.tensor([[[1.0, math.nan]]])).isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scaled(Network()), r"got Network; .* wrap it first: Scaled\(ModuleEmission\("),  # type: ignore[arg-type]
        (lambda: Scaled(EMISSIONS["categorical"](3, 2)), "emission must be of vectors, got Categorical"),
        (lambda: Scaled(EMISSIONS["gaussian"](3, 2), (1.0,), (1.0,)), "loc must be 2 finite numbers"),
        (lambda: Scaled(EMISSIONS["gaussian"](3, 2), LOC, (1.0, 0.0)), "scale must be above 0"),
        (lambda: Scaled(EMISSIONS["poisson"](3, 2), LOC, SCALE), "Poisson is not of real values"),
        (lambda: Scaled(Positive(3, 2), LOC, SCALE), "Positive is not of real values"),
    ],
)  # fmt: skip
def test_refusals(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_emissions_of_one_kind_share_nothing() -> None:
    """Neither their support nor a check of values enters parameters into Pyro's store."""
    first, second = (EMISSIONS["gaussian"](3, size) for size in (2, 1))
    for emission in (first, second):
        Scaled(emission).emission.check_values(torch.zeros(1, 1, emission.output_size))
    assert not [*pyro.get_param_store().keys()]
    assert (first.scale.shape, second.scale.shape) == ((2,), (1,))


def test_single_missing_values_need_a_scaled_emission() -> None:
    data = from_arrays([np.array([[1.0, 2.0], [math.nan, 3.0], [2.0, 1.0]])])
    plain = nz.SequenceModel(nz.NoisyRNN(4, 3), "gaussian", output_size=2)
    for act in (lambda: nz.evaluate(plain, data), lambda: nz.forecast(plain, data, 2)):
        with pytest.raises(ValueError, match=r"single values are missing .* wrap the emission in models.Scaled.*mask$"):
            act()


@pytest.mark.parametrize(("name", "words"), [("poisson", "integers from 0"), ("bernoulli", "0 and 1")])
@pytest.mark.parametrize("is_scaled", [True, False])
def test_impossible_values_beside_missing_ones(name: str, words: str, is_scaled: bool) -> None:
    targets = torch.tensor([[[1.0, 0.0], [math.nan, 1.5], [17.25, 1.0]]])
    emission = EMISSIONS[name](3, 2)
    message = f"in the support of the emission, {words}, got values from 1.5 to 17.25 outside it; use another"
    with pytest.raises(ValueError, match=message):
        (Scaled(emission) if is_scaled else emission).check_values(targets)


def test_a_module_that_returns_a_distribution_is_scaled() -> None:
    values = np.random.default_rng(0).normal(LOC, SCALE, (6, 2))
    values[2, 0] = math.nan
    program = nz.SequenceModel(nz.NoisyRNN(4, 3), Scaled(ModuleEmission(Network(), 3, 2), LOC, SCALE))
    result = nz.evaluate(program, from_arrays([values]))
    assert result.num_steps == 6 and math.isfinite(result.nats_per_step)


def test_the_posterior_of_series_is_in_their_units() -> None:
    series = from_arrays([np.random.default_rng(0).normal(LOC, SCALE, (4, 2))], dtype=torch.float64)
    draws = nz.posterior(
        model("gaussian", LOC, SCALE), series, num_samples=200, num_proposals=500, seed=0, progress=False
    )
    x = draws.posterior_predictive["x"].to_numpy()
    assert np.abs(x.mean((0, 1, 2, 3)) - LOC).max() < 20 and isinstance(series, Sequences)
