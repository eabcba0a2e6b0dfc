"""Noise by name: distributions with the state of a deterministic network as mean, and a free spread."""

from noisin_pyro.noise.checks import CheckReport, ZTest, check
from noisin_pyro.noise.exponential_family import ExponentialFamily
from noisin_pyro.noise.family import Family
from noisin_pyro.noise.registry import FamilyInfo, describe, families, from_published, get, register
from noisin_pyro.noise.standardized import Standardized
from noisin_pyro.noise.transforms import biject_to_support
from noisin_pyro.noise.unit_density import Density, density

__all__ = [
    "CheckReport",
    "Density",
    "ExponentialFamily",
    "Family",
    "FamilyInfo",
    "Standardized",
    "ZTest",
    "biject_to_support",
    "check",
    "density",
    "describe",
    "families",
    "from_published",
    "get",
    "register",
]
