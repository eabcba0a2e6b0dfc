"""The options of ``posterior``, and a check of its memory use."""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

from noisin_pyro._lookup import integer, known

OPTIONS = {
    "prior": ("num_proposals",),
    "guide": ("num_proposals",),
    "nuts": ("num_chains", "warmup_steps", "thin"),
    "smoother": ("num_chains",),
}
"""The options of each method, beside ``num_samples``."""
CHAINS = 4


class Options(NamedTuple):
    """The options of :func:`posterior`, with the defaults of its method."""

    method: str
    num_samples: int
    num_proposals: int | None
    num_chains: int
    warmup_steps: int
    thin: int

    @property
    def num_draws(self) -> int:
        """Total number of draws of all chains, after thinning."""
        return self.num_chains * -(-self.num_samples // self.thin)

    def of_its_method(self) -> tuple[str, ...]:
        """Names of the options that apply to the method."""
        return OPTIONS[self.method]


def checked_options(
    method: str | None,
    guide: object,
    num_samples: int,
    num_proposals: int | None,
    num_chains: int | None,
    warmup_steps: int | None,
    thin: int | None,
) -> Options:
    """Check the options and fill in defaults.

    Raises:
        ValueError: an option that is out of range or does not apply to the method.
    """
    method = known("method", ("prior" if guide is None else "guide") if method is None else method, OPTIONS)
    if (guide is None) == (method == "guide"):
        wrong = "needs a guide, got none" if guide is None else "does not use a guide; drop it"
        raise ValueError(f"method={method!r} {wrong}")
    given = {"num_proposals": num_proposals, "num_chains": num_chains, "warmup_steps": warmup_steps, "thin": thin}
    for name, value in given.items():
        if value is not None and name not in OPTIONS[method]:
            others = " or ".join(repr(other) for other, options in OPTIONS.items() if name in options)
            hint = ", whose draws are independent (reduce num_samples instead)" if name == "thin" else ""
            raise ValueError(f"{name} has no effect on method={method!r}{hint}; drop it, or use method={others}")
    for name, value in {"num_samples": num_samples, **given}.items():
        minimum = 0 if name == "warmup_steps" else 1
        if value is not None:
            integer(name, value, minimum)
    return Options(
        method,
        num_samples,
        10 * num_samples if num_proposals is None and method == "prior" else num_proposals,
        (CHAINS if "num_chains" in OPTIONS[method] else 1) if num_chains is None else num_chains,
        num_samples if warmup_steps is None else warmup_steps,
        1 if thin is None else thin,
    )


def check_memory(
    result: int,
    intermediate: int,
    options: Options,
    max_memory: int,
    progress: bool,
    num_particles: int = 0,
    stored: int = 0,
) -> None:
    """Report the memory use of the result and of intermediate draws (in bytes) on standard error.

    Args:
        num_particles, stored: number of particles of the smoother, and the bytes that they take at all steps.

    Raises:
        ValueError: all together need more than ``max_memory`` bytes.
    """
    computing = intermediate + stored
    message = f"{options.num_draws} draws take {_bytes(result)}, and {_bytes(computing)} more while computing"
    if result + computing > max_memory:
        factor = math.ceil((result + computing) / max_memory)
        remedy = f"draws (about num_samples={max(1, options.num_samples // factor)})"
        remedy = f"draws (about thin={options.thin * factor})" if options.method == "nuts" else remedy
        if 2 * stored > result + computing:
            remedy = f"particles (about num_particles={max(1, num_particles // factor)})"
        raise ValueError(
            f"max_memory: {message}, more than {_bytes(max_memory)}; use fewer {remedy}, fewer sequences, or a larger "
            "max_memory"
        )
    if progress:
        print(f"posterior: {message}", file=sys.stderr)


def _bytes(number: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number = number / 1000
    return f"{number:.3g} GB"
