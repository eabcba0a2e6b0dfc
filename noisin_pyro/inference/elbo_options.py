"""Options of :class:`PriorAsGuide_ELBO` that do not go together, and keywords of Pyro's ELBOs that have no meaning."""

from __future__ import annotations

from typing import Any

from noisin_pyro._lookup import refuse_others

BOUNDS = ("elbo", "importance", "filtering")
# Keywords of Pyro's ELBOs without a meaning here: the value that is accepted, and why no other is.
UNUSED = {
    "max_iarange_nesting": (None, "Pyro has renamed it to max_plate_nesting"),
    "ignore_jit_warnings": (False, "nothing is compiled; use JitTrace_ELBO"),
    "jit_options": (None, "nothing is compiled; use JitTrace_ELBO"),
    "tail_adaptive_beta": (-1.0, "it belongs to TraceTailAdaptive_ELBO"),
}


def check_options(
    bound: str,
    threshold: float | None,
    ancestor_term: bool | None,
    vectorize_particles: bool,
    unused: dict[str, Any],
) -> None:
    """Check the options that are given.

    Raises:
        ValueError: an unknown bound, or an option that has no effect on it.
        TypeError: an unknown keyword.
    """
    if bound not in BOUNDS:
        raise ValueError(f"bound must be one of {', '.join(BOUNDS)}, got {bound!r}")
    for name, value in (("threshold", threshold), ("ancestor_term", ancestor_term)):
        if value is not None and bound != "filtering":
            raise ValueError(f'{name}={value} has no effect on bound={bound!r}; drop it, or use bound="filtering"')
    if threshold == 0 and ancestor_term is not None:
        raise ValueError(f"ancestor_term={ancestor_term} has no effect on threshold=0, without resampling; drop it")
    if bound == "filtering" and not vectorize_particles:
        raise ValueError('vectorize_particles=False has no effect on bound="filtering"; drop it')
    refuse_others("PriorAsGuide_ELBO", unused, UNUSED)
