"""Noise by name: distributions whose mean is a deterministic network's state and whose spread is a free parameter."""

from noisin_pyro.noise.coordinates import coordinates
from noisin_pyro.noise.desiderata import Finding, Report, check
from noisin_pyro.noise.exponential_family import ExponentialFamily
from noisin_pyro.noise.families import Family
from noisin_pyro.noise.registry import Entry, describe, families, from_published, get, register
from noisin_pyro.noise.shapes import Shape, shape
from noisin_pyro.noise.standardized import Standardized

__all__ = [
    "Entry",
    "ExponentialFamily",
    "Family",
    "Finding",
    "Report",
    "Shape",
    "Standardized",
    "check",
    "coordinates",
    "describe",
    "families",
    "from_published",
    "get",
    "register",
    "shape",
]
