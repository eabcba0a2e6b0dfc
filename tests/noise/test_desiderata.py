"""check passes every family of the table and catches those that break one desideratum."""

import pyro.distributions as dist
import pytest
import torch

from noisin_pyro.noise import Family, check, get


class Mine(Family):
    name = "mine"

    def law(self, spread, size):
        return dist.Normal(spread.new_zeros(size), 1.0).to_event(1)


class Biased(Mine):
    def law(self, spread, size):
        return dist.Normal(spread.new_full((size,), 0.05), 1.0).to_event(1)


class TooWide(Mine):
    def law(self, spread, size):
        return dist.Normal(spread.new_zeros(size), 1.05).to_event(1)


class Detached(Mine):
    """z = mean + γε, cut off from the network that computed the mean."""

    def __call__(self, mean, spread):
        return super().__call__(mean.detach(), spread)


class DetachedSpread(Mine):
    def scale(self, mean, spread):
        return spread.detach()


class ScoreCut(Mine):
    """No rsample, and a density that does not know the mean's gradient either."""

    has_rsample = False
    spread_is_pathwise = False

    def __call__(self, mean, spread):
        return get("poisson:native")(mean.detach(), spread)

    mean_range = (0.0, 2.0)

    def scale(self, mean, spread):
        return spread * mean.sqrt()


def failed(report):
    return {finding.desideratum for finding in report.findings if not finding.passed}


def test_every_family_keeps_the_desiderata(family):
    report = check(family)
    assert report.passed, str(report)
    assert report.false_alarm_rate == 1e-6
    assert {finding.desideratum for finding in report.findings} == {1, 2, 3}


@pytest.mark.parametrize(
    "wrong, broken",
    [(Mine, set()), (Biased, {1, 2, 3}), (TooWide, {2, 3}), (Detached, {3}), (DetachedSpread, {3}), (ScoreCut, {3})],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_family_is_caught(wrong, broken):
    report = check(wrong())
    assert report.passed == (not broken)
    assert failed(report) <= broken and bool(failed(report)) == bool(broken)
    if broken:
        assert min(broken) in failed(report)


def test_report_can_be_read():
    good, bad = str(check("gamma:native")), str(check(Detached()))
    assert "gamma:native: keeps the three desiderata (a right family fails with probability 1e-06)" in good
    assert "mine: FAILS" in bad and "FAIL 3. dz/dmean at mean -1.5" in bad and "ok   1. z around" in bad


def test_random_state_is_left_alone():
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
