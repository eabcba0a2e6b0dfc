"""Whether a family keeps the paper's three desiderata (section 3, "Desiderata for noise"), by experiment."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from noisin_pyro.noise.families import Family
from noisin_pyro.noise.registry import get


@dataclass(frozen=True)
class Finding:
    """One comparison of an average over draws with what it should be.

    Attributes:
        desideratum: 1 (the mean), 2 (the spread) or 3 (the gradient).
        quantity: what was averaged.
        expected: its expectation, if the family is right.
        observed: its average.
        deviations: how many standard errors lie between them.
        passed: whether that is few enough.
    """

    desideratum: int
    quantity: str
    expected: float
    observed: float
    deviations: float
    passed: bool


@dataclass(frozen=True)
class Report:
    """What ``check`` found; ``print`` it.

    Attributes:
        family: the family's name and form.
        findings: all comparisons.
        false_alarm_rate: the probability that a right family fails one of them or more.
    """

    family: str
    findings: tuple[Finding, ...]
    false_alarm_rate: float

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    def __str__(self) -> str:
        verdict = "keeps the three desiderata" if self.passed else "FAILS"
        lines = [f"{self.family}: {verdict} (a right family fails with probability {self.false_alarm_rate:g})"]
        for f in self.findings:
            mark = "ok  " if f.passed else "FAIL"
            lines.append(
                f"  {mark} {f.desideratum}. {f.quantity:<44} expected {f.expected:>9.5f}  observed {f.observed:>9.5f}"
                f"  {f.deviations:>6.1f} standard errors"
            )
        return "\n".join(lines)


def check(
    family: str | Family,
    spread: float = 0.5,
    size: int = 3,
    num_samples: int = 100_000,
    false_alarm_rate: float = 1e-6,
    seed: int = 0,
) -> Report:
    """Test E[z] = mean, sd z = what the form says, and that the gradient through z contains the RNN's own.

    Draws of z around a few means, for ``spread`` and half of it, are compared with their expectations by z-tests at
    one level, so that a right family fails with probability ``false_alarm_rate`` in all (to the accuracy of the
    central limit theorem). The gradient is that of a draw, or by the score function if the family has no ``rsample``.
    Global random state is left alone.

    Args:
        family: a name, as for ``get``, or a Family, your own included.
        spread: γ to test at.
        size: units of z.
        num_samples: draws.
        false_alarm_rate: for the whole report.
        seed: of the draws.

    Raises:
        ValueError: an argument out of range, or a family that cannot be called at all.
    """
    family = get(family)
    if num_samples < 1000:
        raise ValueError(f"num_samples: expected 1000 or more, for averages to be normal, got {num_samples}")
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"false_alarm_rate: expected a probability between 0 and 1, got {false_alarm_rate}")
    mean = _means(family.mean_range, size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        samples = [s for gamma in (spread, spread / 2) for s in _moments(family, mean, gamma, num_samples)]
        samples += _gradients(family, mean, spread, num_samples)
    most = -NormalDist().inv_cdf(false_alarm_rate / len(samples) / 2)
    return Report(str(family), tuple(_compare(*sample, most=most) for sample in samples), false_alarm_rate)


Sample = tuple[int, str, float, Tensor]  # desideratum, quantity, its expectation, draws of it


def _moments(family: Family, mean: Tensor, gamma: float, num_samples: int) -> Iterator[Sample]:
    z = family(mean, gamma).sample(torch.Size([num_samples]))
    variance = family.scale(mean, mean.new_tensor(gamma)).square().expand(mean.shape)
    for i, h in enumerate(mean.tolist()):
        yield 1, f"z around {h:g} with spread {gamma:g}", h, z[:, i]
        yield 2, f"(z - {h:g})² with spread {gamma:g}", variance[i].item(), (z[:, i] - h).square()


def _gradients(family: Family, mean: Tensor, gamma: float, num_samples: int) -> Iterator[Sample]:
    # a copy of the arguments for each draw, so that one backward pass gives each draw's own gradient
    means = mean.expand(num_samples, -1).clone().requires_grad_()
    spreads = mean.new_full((num_samples, 1), gamma).requires_grad_(family.spread_is_pathwise)
    z = family(means, spreads)()
    if family.has_rsample:
        slope, how = _gradient(z.sum(), means), "dz/dmean"
    else:
        score = _gradient(family(means, spreads).log_prob(z).sum(), means)
        slope, how = (z.detach() - mean) * score, "(z - mean) dlog p(z)/dmean"
    for i, h in enumerate(mean.tolist()):
        yield 3, f"{how} at mean {h:g}", 1.0, slope[:, i]
    if family.spread_is_pathwise:
        more, less = (family.scale(mean, mean.new_tensor(gamma * factor)).square() for factor in (1.001, 0.999))
        expected = ((more - less).expand(mean.shape).sum() / (0.002 * gamma)).item()
        yield 3, "d(z - mean)²/dspread", expected, _gradient((z - means).square().sum(), spreads)[:, 0]


def _gradient(value: Tensor, argument: Tensor) -> Tensor:
    """The gradient, zero where none arrives."""
    if not value.requires_grad:
        return torch.zeros_like(argument)
    (gradient,) = torch.autograd.grad(value, argument, retain_graph=True, allow_unused=True)
    return torch.zeros_like(argument) if gradient is None else gradient


def _compare(desideratum: int, quantity: str, expected: float, draws: Tensor, most: float) -> Finding:
    observed = draws.mean().item()
    error = draws.std().item() / math.sqrt(len(draws))
    # a constant has no error but that of rounding
    error = max(error, 1e-10 * (1 + abs(expected)))
    deviations = abs(observed - expected) / error
    return Finding(desideratum, quantity, expected, observed, deviations, deviations <= most)


def _means(interval: tuple[float, float], size: int) -> Tensor:
    """Some means well inside the interval, none of them 0."""
    low, high = interval
    if math.isinf(low):
        low, high = (-1.5, 2.0) if math.isinf(high) else (high - 2.0, high - 0.5)
    elif math.isinf(high):
        low, high = low + 0.5, low + 2.0
    else:
        low, high = low + 0.2 * (high - low), high - 0.2 * (high - low)
    return torch.linspace(low, high, size, dtype=torch.float64)
