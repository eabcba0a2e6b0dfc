"""What is asked of a posterior: options that apply, and a size that fits."""

from __future__ import annotations

import math
import sys
from typing import NamedTuple

from noisin_pyro.names import known

METHODS = ("prior", "guide", "nuts")
OF_NUTS, OF_OTHERS = ("num_chains", "warmup_steps", "thin"), ("num_proposals",)
CHAINS = 4


class Options(NamedTuple):
    """What was asked for, with the defaults of its method."""

    method: str
    num_samples: int
    num_proposals: int | None
    num_chains: int
    warmup_steps: int
    thin: int

    @property
    def kept(self) -> int:
        """Draws of all chains together."""
        return self.num_chains * -(-self.num_samples // self.thin)

    def of_its_method(self) -> tuple[str, ...]:
        """The names of those that apply."""
        return OF_NUTS if self.method == "nuts" else OF_OTHERS


def asked(
    method: str | None,
    guide: object,
    num_samples: int,
    num_proposals: int | None,
    num_chains: int | None,
    warmup_steps: int | None,
    thin: int | None,
) -> Options:
    """The options, if each is in range and applies."""
    method = known("method", ("prior" if guide is None else "guide") if method is None else method, METHODS)
    if (guide is None) == (method == "guide"):
        wrong = "needs a guide, got none" if guide is None else "has no use for a guide; drop it"
        raise ValueError(f"method={method!r} {wrong}")
    given = {"num_proposals": num_proposals, "num_chains": num_chains, "warmup_steps": warmup_steps, "thin": thin}
    for name, value in given.items():
        if value is not None and (name in OF_NUTS) != (method == "nuts"):
            others = "'nuts'" if name in OF_NUTS else "'prior' or 'guide'"
            hint = ": its draws are independent, take fewer num_samples" if name == "thin" else ""
            raise ValueError(f"{name} has no effect on method={method!r}{hint}; drop it, or take method={others}")
    for name, value in {"num_samples": num_samples, **given}.items():
        least = 0 if name == "warmup_steps" else 1
        if value is not None and (not isinstance(value, int) or value < least):
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return Options(
        method,
        num_samples,
        10 * num_samples if num_proposals is None and method == "prior" else num_proposals,
        (CHAINS if method == "nuts" else 1) if num_chains is None else num_chains,
        num_samples if warmup_steps is None else warmup_steps,
        1 if thin is None else thin,
    )


def state_size(result: int, made_from: int, options: Options, max_memory: int, progress: bool) -> None:
    """Say what it will take, in bytes; refuse what is too much."""
    what = f"{options.kept} draws take {_bytes(result)}, and {_bytes(made_from)} more while made"
    if result + made_from > max_memory:
        factor = math.ceil((result + made_from) / max_memory)
        less = f"num_samples={max(1, options.num_samples // factor)}"
        less = f"thin={options.thin * factor}" if options.method == "nuts" else less
        raise ValueError(
            f"max_memory: {what}, more than {_bytes(max_memory)}; ask for less (about {less}), give fewer sequences, "
            "or raise max_memory"
        )
    if progress:
        print(f"posterior: {what}", file=sys.stderr)


def _bytes(number: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number = number / 1000
    return f"{number:.3g} GB"
