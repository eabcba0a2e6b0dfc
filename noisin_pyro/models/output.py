"""What a model returns."""

from __future__ import annotations

from typing import Any, NamedTuple

from pyro.distributions import TorchDistribution

from noisin_pyro.models._validation import State


class Output(NamedTuple):
    """What a model returns: p(x_t | z_t) with batch shape ``(..., B, T)``, and the state at each sequence's end."""

    emission: TorchDistribution
    state: State


def require_output(returned: Any) -> Output:
    """What a program returned, if it has the attributes of an :class:`Output`.

    Raises:
        ValueError: if it has not.
    """
    if hasattr(returned, "emission") and hasattr(returned, "state"):
        return returned
    raise ValueError(
        f"model must return its emission and its state, got a {type(returned).__name__}; end it with return "
        "noisin_pyro.models.Output(emission, state): the distribution of x_t given z_t with batch shape (..., batch, "
        "time), and the second value that the layers return"
    )
