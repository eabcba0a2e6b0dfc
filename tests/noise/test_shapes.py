"""Shapes for pictures: each is a law of mean 0 and variance 1."""

import pytest
import torch

from noisin_pyro import noise
from noisin_pyro.noise import shape

ENTRIES = [pytest.param(entry, id=f"{entry.name}:{entry.form}") for entry in noise.describe()]


@pytest.mark.parametrize("entry", ENTRIES)
def test_total_mean_and_variance(entry: noise.Entry) -> None:
    family = entry.make()
    found = shape(family, mean=0.4 if family.mean_range[1] <= 1 else 1.7, spread=0.5, ends=(-15.0, 15.0))
    assert found.discrete == family.discrete
    assert (found.points.diff() > 0).all() and (found.heights >= 0).all()

    def integral(powers: int) -> float:
        values = found.heights * found.points**powers
        return (values.sum() if found.discrete else torch.trapezoid(values, found.points)).item()

    # a grid of 801 points meets the laws' jumps to 1 in 50; the 300,000 draws have a relative error below 1 in 100
    assert [integral(power) for power in range(3)] == pytest.approx([1.0, 0.0, 1.0], abs=0.03)


def test_known_heights() -> None:
    normal = shape(noise.get("gaussian:multiplicative"), mean=-2.0)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(normal.points).exp()
    torch.testing.assert_close(normal.heights, expected, rtol=1e-6, atol=0)
    signs = shape(noise.get("bernoulli"))
    assert (signs.points.tolist(), signs.heights.tolist()) == ([-1.0, 1.0], pytest.approx([0.5, 0.5]))
    one_hot = shape(noise.get("categorical"), units=4)
    assert one_hot.points.tolist() == pytest.approx([-(3**-0.5), 3**0.5], abs=1e-6)
    # 300,000 draws: a standard error of 0.0008; five of them, false-alarm rate 6e-7
    assert one_hot.heights.tolist() == pytest.approx([0.75, 0.25], abs=0.004)


def test_generators_are_left_as_they_were() -> None:
    before = torch.get_rng_state()
    first, second = (shape(noise.get("dirichlet")).heights for _ in range(2))
    assert torch.equal(first, second) and torch.equal(torch.get_rng_state(), before)


def test_a_mean_that_the_family_does_not_have() -> None:
    with pytest.raises(ValueError, match="mean"):
        shape(noise.get("beta:native"), mean=1.0)
