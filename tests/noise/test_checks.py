"""``check`` passes every built-in family and fails those that violate a desideratum."""

import pyro.distributions as dist
import pytest
import torch

from noisin_pyro.noise import Family, check, get


class MyFamily(Family):
    name = "my-family"

    def law(self, spread, size):
        return dist.Normal(spread.new_zeros(size), 1.0).to_event(1)


class Biased(MyFamily):
    def law(self, spread, size):
        return dist.Normal(spread.new_full((size,), 0.05), 1.0).to_event(1)


class TooWide(MyFamily):
    def law(self, spread, size):
        return dist.Normal(spread.new_zeros(size), 1.05).to_event(1)


class Detached(MyFamily):
    """z = mean + γε, detached from the network that computes the mean."""

    def __call__(self, mean, spread):
        return super().__call__(mean.detach(), spread)


class DetachedSpread(MyFamily):
    def scale(self, mean, spread):
        return spread.detach()


class ScoreCut(MyFamily):
    """No rsample, and no gradient of log p(z) in the mean either."""

    has_rsample = False
    spread_is_pathwise = False

    def __call__(self, mean, spread):
        return get("poisson:native")(mean.detach(), spread)

    mean_range = (0.0, 2.0)

    def scale(self, mean, spread):
        return spread * mean.sqrt()


def failed(report):
    return {test.desideratum for test in report.tests if not test.passed}


def test_every_family_satisfies_the_desiderata(family):
    report = check(family)
    assert report.passed, str(report)
    assert report.false_alarm_rate == 1e-6
    assert {test.desideratum for test in report.tests} == {1, 2, 3}


@pytest.mark.parametrize(
    "wrong, broken",
    [
        (MyFamily, set()),
        (Biased, {1, 2, 3}),
        (TooWide, {2, 3}),
        (Detached, {3}),
        (DetachedSpread, {3}),
        (ScoreCut, {3}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_family_is_caught(wrong, broken):
    report = check(wrong())
    assert report.passed == (not broken)
    assert failed(report) <= broken and bool(failed(report)) == bool(broken)
    if broken:
        assert min(broken) in failed(report)


def test_report_is_readable():
    good, bad = str(check("gamma:native")), str(check(Detached()))
    assert "gamma:native: satisfies the three desiderata (false-alarm rate 1e-06)" in good
    assert "my-family: FAILS" in bad and "FAIL 3. dz/dmean at mean -1.5" in bad and "ok   1. z around" in bad


def test_random_state_is_unchanged():
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    first, second = check("gumbel"), check("gumbel")
    assert first == second
    assert torch.equal(torch.rand(2), expected)


def test_arguments():
    with pytest.raises(ValueError, match="num_samples: expected 1000 or more"):
        check("gamma", num_samples=10)
    with pytest.raises(ValueError, match="false_alarm_rate: expected a probability"):
        check("gamma", false_alarm_rate=0.0)
    with pytest.raises(ValueError, match="use 2 or more"):
        check("dirichlet", size=1)


@pytest.mark.parametrize(
    "name, spread, num_samples, rate",
    [
        ("gaussian", 0.5, 1000, 0.1),
        ("beta", 0.5, 1000, 0.1),
        ("gamma", 0.5, 15_000, 0.1),
        ("laplace:multiplicative", 0.5, 15_000, 0.1),
        ("gamma:multiplicative", 0.3, 3000, 0.1),
    ],
)
def test_the_false_alarm_rate_is_that_stated(name, spread, num_samples, rate):
    """Binomial test of 100 reports: 27 false alarms or more at a rate of 0.1 have probability 1e-6."""
    alarms = sum(
        not check(name, spread, 1, num_samples, false_alarm_rate=rate, seed=seed).passed for seed in range(100)
    )
    assert alarms < 27


@pytest.mark.parametrize(
    "name, spread, num_samples, rate",
    [
        ("gamma:multiplicative", 1.5, 1000, 0.01),
        ("gamma:multiplicative", 1.5, 1000, 1e-6),
        ("bernoulli:multiplicative", 0.1, 1000, 0.01),
        ("poisson:multiplicative", 3.0, 1000, 0.01),
        ("exponential", 0.5, 1000, 1e-6),
        ("gamma:native", 2.0, 1000, 0.05),
    ],
)
def test_too_few_samples_for_heavy_tails_are_refused(name, spread, num_samples, rate):
    for seed in range(10):
        with pytest.raises(ValueError, match=r"num_samples: .* has tails too heavy for 1000 samples .*use at least"):
            check(name, spread, num_samples=num_samples, false_alarm_rate=rate, seed=seed)


def test_an_infinite_draw_fails():
    class Infinite(MyFamily):
        def law(self, spread, size):
            return dist.Normal(spread.new_zeros(size), torch.inf).to_event(1)

    assert not check(Infinite(), num_samples=1000).passed
