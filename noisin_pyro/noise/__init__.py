"""Noise by name: distributions whose mean is the state of a deterministic network and whose spread is a free parameter."""

from .exponential_family import ExponentialFamily
from .families import Family
from .registry import Entry, describe, families, from_published, get, register
from .standardized import Standardized

__all__ = [
    "Entry",
    "ExponentialFamily",
    "Family",
    "Standardized",
    "describe",
    "families",
    "from_published",
    "get",
    "register",
]
