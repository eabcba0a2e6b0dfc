"""Density of one unit's standardized noise, for plots."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noisin_pyro.noise.family import Family

ATOM_SAMPLES, JOINT_SAMPLES = 20_000, 300_000


@dataclass(frozen=True)
class Density:
    """Density of one unit's ε = (z − mean)/sd(z), or its probabilities if discrete.

    Attributes:
        points: values of ε, ascending, ``(N,)``.
        values: density or probability at each point, ``(N,)``.
        discrete: whether ``values`` are probabilities.
    """

    points: Tensor
    values: Tensor
    discrete: bool


def density(
    family: Family,
    mean: float = 1.0,
    spread: float = 0.5,
    units: int = 8,
    interval: tuple[float, float] = (-4.0, 4.0),
) -> Density:
    """Density of ``family(mean, spread)``, standardized to mean 0 and variance 1.

    It is computed from ``log_prob``, for a discrete law at the values that occur among 20,000 samples. For laws that
    couple the units of a layer (categorical, dirichlet) it is a histogram of 300,000 samples. The samples are the same
    at every call, and the global random state is unchanged.

    Args:
        family: the family.
        mean, spread: mean and γ. Only laws that depend on them look different for other values (native forms, and
            multiplicative gamma, bernoulli and poisson).
        units: number of units, for laws that couple them.
        interval: range of ε for a continuous law.

    Raises:
        ValueError: a mean or spread outside the family's range.
    """
    means = torch.full((units if family.joint else 1,), mean, dtype=torch.float64)
    law = family(means, spread)
    scale = family.scale(means, means.new_tensor(spread)).expand_as(means)[0]
    if family.discrete or family.joint:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            num_samples = JOINT_SAMPLES if family.joint else ATOM_SAMPLES
            samples = (law.sample(torch.Size([num_samples]))[:, 0] - mean) / scale
        if not family.discrete:
            counts, edges = torch.histogram(samples, bins=100, range=interval)
            return Density((edges[1:] + edges[:-1]) / 2, counts / len(samples) / (edges[1] - edges[0]), discrete=False)
        atoms, counts = samples.round(decimals=6).unique(return_counts=True)
        if family.joint:
            return Density(atoms, counts / len(samples), discrete=True)
        return Density(atoms, law.log_prob((mean + scale * atoms)[:, None]).exp(), discrete=True)
    points = torch.linspace(*interval, 801, dtype=torch.float64)
    return Density(points, law.log_prob((mean + scale * points)[:, None]).exp() * scale.abs(), discrete=False)
