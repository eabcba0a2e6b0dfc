"""Monte Carlo tests of the paper's three desiderata for noise (section 3)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from noisin_pyro.noise.family import Family
from noisin_pyro.noise.registry import get


@dataclass(frozen=True)
class ZTest:
    """A z-test of an average over samples against its expected value.

    Attributes:
        desideratum: 1 (the mean), 2 (the spread) or 3 (the gradient).
        quantity: what was averaged.
        expected: its expectation if the family satisfies the desideratum.
        observed: its average.
        z_score: absolute difference of the two in standard errors, corrected for skewness.
        passed: whether the z-score is below the critical value.
    """

    desideratum: int
    quantity: str
    expected: float
    observed: float
    z_score: float
    passed: bool


@dataclass(frozen=True)
class CheckReport:
    """Result of :func:`check`. ``print`` shows it as a table.

    Attributes:
        family: name and form of the family.
        tests: all tests.
        false_alarm_rate: probability that a family that satisfies the desiderata fails at least one test.
    """

    family: str
    tests: tuple[ZTest, ...]
    false_alarm_rate: float

    @property
    def passed(self) -> bool:
        """Whether all tests passed."""
        return all(test.passed for test in self.tests)

    def __str__(self) -> str:
        verdict = "satisfies the three desiderata" if self.passed else "FAILS"
        lines = [f"{self.family}: {verdict} (false-alarm rate {self.false_alarm_rate:g})"]
        for test in self.tests:
            mark = "ok  " if test.passed else "FAIL"
            lines.append(
                f"  {mark} {test.desideratum}. {test.quantity:<44} expected {test.expected:>9.5f}"
                f"  observed {test.observed:>9.5f}  {test.z_score:>6.1f} standard errors"
            )
        return "\n".join(lines)


def check(
    family: str | Family,
    spread: float = 0.5,
    size: int = 3,
    num_samples: int = 100_000,
    false_alarm_rate: float = 1e-6,
    seed: int = 0,
) -> CheckReport:
    """Test that E[z] = mean, that sd(z) is as the form says, and that the gradient through z contains the RNN's own.

    Samples of z around a few means, at ``spread`` and half of it, are compared with their expectations by z-tests.
    All tests have the same level, such that a family that satisfies the desiderata fails with probability
    ``false_alarm_rate`` at most (Bonferroni). This needs averages whose tails are normal once their skewness is
    corrected for. Heavier tails than ``num_samples`` allows are refused. The gradient is pathwise, or that of the score
    function if the family has no ``rsample``. The global random state is unchanged.

    Args:
        family: a name, as in ``get``, or a Family.
        spread: γ to test at.
        size: number of units of z.
        num_samples: number of samples, at least 1000.
        false_alarm_rate: for all tests together.
        seed: random seed.

    Raises:
        ValueError: an argument out of range, a family that cannot be called with these arguments, or too few samples
            for its tails at this false-alarm rate.

    Source: Hall (1992), *On the Removal of Skewness by Transformation*, for the correction.
    """
    family = get(family)
    if num_samples < 1000:
        raise ValueError(
            f"num_samples: expected 1000 or more, got {num_samples}; with fewer the averages are not close to normal"
        )
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"false_alarm_rate: expected a probability between 0 and 1, got {false_alarm_rate}")
    mean = _means(family.mean_range, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        cases = [case for gamma in (spread, spread / 2) for case in _moments(family, mean, gamma, num_samples)]
        cases += _gradients(family, mean, spread, num_samples)
    critical = -NormalDist().inv_cdf(false_alarm_rate / len(cases) / 2)  # two-sided, Bonferroni
    return CheckReport(str(family), tuple(_z_test(*case, critical=critical) for case in cases), false_alarm_rate)


Case = tuple[int, str, float, Tensor]  # desideratum, quantity, its expectation, samples of it


def _moments(family: Family, mean: Tensor, gamma: float, num_samples: int) -> Iterator[Case]:
    z = family(mean, gamma).sample(torch.Size([num_samples]))
    variance = family.scale(mean, mean.new_tensor(gamma)).square().expand(mean.shape)
    for i, h in enumerate(mean.tolist()):
        yield 1, f"z around {h:g} with spread {gamma:g}", h, z[:, i]
        yield 2, f"(z - {h:g})² with spread {gamma:g}", variance[i].item(), (z[:, i] - h).square()


def _gradients(family: Family, mean: Tensor, gamma: float, num_samples: int) -> Iterator[Case]:
    # The arguments are expanded over samples, so that one backward pass gives the gradient of each sample.
    means = mean.expand(num_samples, -1).clone().requires_grad_()
    spreads = mean.new_full((num_samples, 1), gamma).requires_grad_(family.spread_is_pathwise)
    z = family(means, spreads)()
    if family.has_rsample:
        gradient, quantity = _gradient(z.sum(), means), "dz/dmean"
    else:
        score = _gradient(family(means, spreads).log_prob(z).sum(), means)
        gradient, quantity = (z.detach() - mean) * score, "(z - mean) dlog p(z)/dmean"
    for i, h in enumerate(mean.tolist()):
        yield 3, f"{quantity} at mean {h:g}", 1.0, gradient[:, i]
    if family.spread_is_pathwise:
        # central difference of the variance in γ
        above, below = (family.scale(mean, mean.new_tensor(gamma * factor)).square() for factor in (1.001, 0.999))
        expected = ((above - below).expand(mean.shape).sum() / (0.002 * gamma)).item()
        yield 3, "d(z - mean)²/dspread", expected, _gradient((z - means).square().sum(), spreads)[:, 0]


def _gradient(value: Tensor, argument: Tensor) -> Tensor:
    """The gradient of ``value``, or zeros if it does not depend on ``argument``."""
    if not value.requires_grad:
        return torch.zeros_like(argument)
    (gradient,) = torch.autograd.grad(value, argument, retain_graph=True, allow_unused=True)
    return torch.zeros_like(argument) if gradient is None else gradient


def _z_test(desideratum: int, quantity: str, expected: float, samples: Tensor, critical: float) -> ZTest:
    n, observed = len(samples), samples.mean().item()
    deviations = samples - observed
    std = deviations.square().mean().sqrt().item()
    # a constant (dz/dmean of additive noise) has only rounding error
    rounding = 1e-10 * (1 + abs(expected))
    t = (observed - expected) / max(std / math.sqrt(n), rounding)
    if std > rounding:
        skewness, kurtosis = ((deviations / std).pow(power).mean().item() for power in (3, 4))
        _check_tails(quantity, n, skewness**2 + kurtosis, critical)
        a = skewness / (3 * math.sqrt(n))
        t = t + a * t**2 + a**2 * t**3 / 3 + a / 2
    return ZTest(desideratum, quantity, expected, observed, abs(t), abs(t) <= critical)


def _check_tails(quantity: str, n: int, tails: float, critical: float) -> None:
    """The next term of the Edgeworth series must not double the probability beyond the critical value."""
    required = critical**4 * tails / (12 * math.log(2))
    if n < required:
        raise ValueError(
            f"num_samples: {quantity} has tails too heavy for {n} samples at this false_alarm_rate; use at least "
            f"{required:.2g} samples, another spread, or a higher rate"
        )


def _means(interval: tuple[float, float], size: int) -> Tensor:
    """Means well inside the interval, evenly spaced."""
    low, high = interval
    if math.isinf(low):
        low, high = (-1.5, 2.0) if math.isinf(high) else (high - 2.0, high - 0.5)
    elif math.isinf(high):
        low, high = low + 0.5, low + 2.0
    else:
        low, high = low + 0.2 * (high - low), high - 0.2 * (high - low)
    return torch.linspace(low, high, size, dtype=torch.float64)
