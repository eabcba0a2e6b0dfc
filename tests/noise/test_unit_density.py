"""Densities for plots: each has mean 0 and variance 1."""

import pytest
import torch

from noisin_pyro import noise
from noisin_pyro.noise import density

ENTRIES = [pytest.param(entry, id=f"{entry.name}:{entry.form}") for entry in noise.describe()]


@pytest.mark.parametrize("entry", ENTRIES)
def test_total_mean_and_variance(entry: noise.FamilyInfo) -> None:
    family = entry.make()
    result = density(family, mean=0.4 if family.mean_range[1] <= 1 else 1.7, spread=0.5, interval=(-15.0, 15.0))
    assert result.discrete == family.discrete
    assert (result.points.diff() > 0).all() and (result.values >= 0).all()

    def integral(powers: int) -> float:
        integrand = result.values * result.points**powers
        return (integrand.sum() if result.discrete else torch.trapezoid(integrand, result.points)).item()

    # a grid of 801 points resolves the jumps to 2%; 300,000 samples have a relative error below 1%
    assert [integral(power) for power in range(3)] == pytest.approx([1.0, 0.0, 1.0], abs=0.03)


def test_values_in_closed_form() -> None:
    normal = density(noise.get("gaussian:multiplicative"), mean=-2.0)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(normal.points).exp()
    torch.testing.assert_close(normal.values, expected, rtol=1e-6, atol=0)
    signs = density(noise.get("bernoulli"))
    assert (signs.points.tolist(), signs.values.tolist()) == ([-1.0, 1.0], pytest.approx([0.5, 0.5]))
    one_hot = density(noise.get("categorical"), units=4)
    assert one_hot.points.tolist() == pytest.approx([-(3**-0.5), 3**0.5], abs=1e-6)
    # 300,000 samples: a standard error of 0.0008; five of them, false-alarm rate 6e-7
    assert one_hot.values.tolist() == pytest.approx([0.75, 0.25], abs=0.004)


def test_random_state_is_unchanged() -> None:
    before = torch.get_rng_state()
    first, second = (density(noise.get("dirichlet")).values for _ in range(2))
    assert torch.equal(first, second) and torch.equal(torch.get_rng_state(), before)


def test_a_mean_outside_the_range_is_refused() -> None:
    with pytest.raises(ValueError, match="mean"):
        density(noise.get("beta:native"), mean=1.0)
