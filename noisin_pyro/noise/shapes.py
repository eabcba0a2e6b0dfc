"""The shape of each law of noise, for pictures: the density or the mass of one unit's standardised noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from noisin_pyro.noise.families import Family

DRAWS_OF_ATOMS, DRAWS_OF_JOINT = 20_000, 300_000


@dataclass(frozen=True)
class Shape:
    """The law of one unit's ε = (z − mean)/standard deviation.

    Attributes:
        points: ε, ascending, ``(N,)``.
        heights: its density there; of a discrete law its probability.
        discrete: which of the two.
    """

    points: Tensor
    heights: Tensor
    discrete: bool


def shape(
    family: Family, mean: float = 1.0, spread: float = 0.5, units: int = 8, ends: tuple[float, float] = (-4.0, 4.0)
) -> Shape:
    """What ``family(mean, spread)`` looks like, brought to mean 0 and variance 1.

    Exact, from ``log_prob``, at the atoms that 20,000 draws find if it is discrete. For laws that couple a layer's
    units (categorical, dirichlet) it is the frequencies of 300,000 draws. Draws are the same each time, and leave
    torch's generators as they were.

    Args:
        mean, spread: only laws that depend on them (native ones, and multiplicative gamma, bernoulli, poisson) look
            different for others.
        units: of the layer, for the laws that couple them.
        ends: the interval of ε in which a density is asked for.

    Raises:
        ValueError: a mean or spread that the family does not have.
    """
    joint = bool(getattr(family, "joint", False))
    means = torch.full((units if joint else 1,), mean, dtype=torch.float64)
    law = family(means, spread)
    scale = family.scale(means, means.new_tensor(spread)).expand_as(means)[0]
    if family.discrete or joint:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            draws = (law.sample(torch.Size([DRAWS_OF_JOINT if joint else DRAWS_OF_ATOMS]))[:, 0] - mean) / scale
        if not family.discrete:
            return _histogram(draws, ends)
        atoms, counts = draws.round(decimals=6).unique(return_counts=True)
        if joint:
            return Shape(atoms, counts / len(draws), discrete=True)
        return Shape(atoms, law.log_prob((mean + scale * atoms)[:, None]).exp(), discrete=True)
    points = torch.linspace(*ends, 801, dtype=torch.float64)
    return Shape(points, law.log_prob((mean + scale * points)[:, None]).exp() * scale.abs(), discrete=False)


def _histogram(draws: Tensor, ends: tuple[float, float]) -> Shape:
    counts, edges = torch.histogram(draws, bins=100, range=ends)
    return Shape((edges[1:] + edges[:-1]) / 2, counts / len(draws) / (edges[1] - edges[0]), discrete=False)
