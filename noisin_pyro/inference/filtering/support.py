"""Which programs a particle filter runs: a :class:`SequenceModel` with noisy states, fixed weights and fixed γ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro import poutine
from pyro.poutine.util import prune_subsample_sites

from noisin_pyro.data import Batch
from noisin_pyro.inference.traces import all_sites
from noisin_pyro.models import NoisyPath, SequenceModel, underlying

PARTICLE_FILTER = "method='particle-filter'"


def refuse_own_forward(program: SequenceModel, user: str) -> None:
    """Check that the program is nothing but its layers and its emission, which are run step by step.

    Raises:
        ValueError: a subclass with a ``forward`` of its own, which would be ignored.
    """
    if type(program).forward is not SequenceModel.forward:
        kind = type(program).__name__
        raise ValueError(
            f"{user} runs the layers and the emission step by step, without {kind}.forward; use a SequenceModel "
            "without a forward of its own (missing targets are given by mask)"
        )


def filterable(model: Callable[..., Any], user: str = PARTICLE_FILTER) -> tuple[SequenceModel, list[Any]]:
    """The :class:`SequenceModel` under its views, and the handlers that condition its sites.

    Args:
        user: what needs it, in messages.

    Raises:
        ValueError: a program that is not a :class:`SequenceModel`, or one with its noise off.
    """
    program, conditions = underlying(model)
    if isinstance(program, SequenceModel):
        return program, conditions
    noise_off = " (for noise_off(model) use method='mean')" if user == PARTICLE_FILTER else ""
    handler = getattr(getattr(program, "func", None), "args", (program,))[0]  # of Pyro's, around the program
    raise ValueError(
        f"{user} needs a SequenceModel, got {type(handler).__name__}; pass the model itself, or its unroll or "
        f"innovations view{noise_off}"
    )


def has_noisy_states(program: SequenceModel, batch: Batch, user: str = PARTICLE_FILTER) -> bool:
    """Whether any state is noisy.

    Raises:
        ValueError: dropout, sampled weights or γ, or states that are conditioned on.
    """
    others = "method 'importance', 'ensemble' or 'mean'" if user == PARTICLE_FILTER else ""
    program.dropout.refuse(f"{user} does not support dropout masks", others)
    trace = poutine.trace(program).get_trace(batch.inputs, batch.targets, **batch.keywords)
    noisy = False
    for site in all_sites(prune_subsample_sites(trace)):
        is_state = isinstance(site["fn"], NoisyPath)
        noisy = noisy or is_state
        if is_state and site["is_observed"]:
            raise ValueError(f"{user} samples the states, but {site['name']!r} is conditioned on")
        if not is_state and not site["is_observed"]:
            raise ValueError(
                f"{user} needs fixed weights and γ, but {site['name']!r} is sampled; condition on it "
                f"first, as in pyro.condition(model, {{{site['name']!r}: ...}})"
            )
    return noisy
