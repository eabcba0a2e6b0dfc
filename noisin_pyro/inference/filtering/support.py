"""Which programs a particle filter runs: a :class:`SequenceModel` with noisy states, fixed weights and fixed γ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro import poutine
from pyro.poutine.condition_messenger import ConditionMessenger
from pyro.poutine.do_messenger import DoMessenger
from pyro.poutine.lift_messenger import LiftMessenger
from pyro.poutine.mask_messenger import MaskMessenger
from pyro.poutine.runtime import _PYRO_STACK  # the handlers that are entered; Pyro has no public name for them
from pyro.poutine.scale_messenger import ScaleMessenger
from pyro.poutine.util import prune_subsample_sites

from noisin_pyro.data import Batch
from noisin_pyro.inference.traces import all_sites
from noisin_pyro.models import NoisyPath, NoisyRNN, SequenceModel, underlying

PARTICLE_FILTER = "method='particle-filter'"
# What to do in place of a handler that is not run step by step: in evaluation, and in a bound.
REMEDIES = {
    MaskMessenger: (
        "give missing targets by the data's mask, as in Sequences(..., mask=mask)",
        "mark missing targets by the argument mask, or enter poutine.mask(mask=...) around the call of the bound",
    ),
    ScaleMessenger: (
        "drop it, since scores do not apply it",
        "enter poutine.scale(scale=...) around the call of the bound",
    ),
    LiftMessenger: (
        "fix the weights; only the methods 'importance' and 'ensemble' of evaluate sample them",
        "place the priors on the model (models.place_priors, PyroSample)",
    ),
}


def refuse_own_forward(program: SequenceModel, user: str) -> None:
    """Check that the program is nothing but its layers and its emission, which are run step by step.

    Raises:
        ValueError: a ``forward`` of its own, or hooks, which would be ignored.
    """
    if skipped := own_forward(program):
        raise ValueError(
            f"{user} runs the layers and the emission step by step, without {skipped}; use a SequenceModel and a "
            "NoisyRNN without a forward of their own and without hooks (missing targets are given by mask)"
        )


def own_forward(program: SequenceModel) -> str | None:
    """The ``forward`` of a subclass, or the hooks around it, that a run step by step would ignore; None without one."""
    for module, base in ((program, SequenceModel), (program.rnn, NoisyRNN)):
        kind = type(module).__name__
        if getattr(module.forward, "__func__", None) is not base.forward:
            return f"{kind}.forward"
        hooks = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
        # those of torch.nn.utils.weight_norm set the weights, in any run
        if any(not type(hook).__module__.startswith("torch.nn.utils.") for hook in hooks):
            return f"the forward hooks of {kind}"
    return None


def filterable(model: Callable[..., Any], user: str = PARTICLE_FILTER) -> tuple[SequenceModel, list[Any]]:
    """The :class:`SequenceModel` under its views, and the handlers that condition its sites.

    Args:
        user: what needs it, in messages.

    Raises:
        ValueError: a program that is not a :class:`SequenceModel`, one with its noise off, or one whose states or noise
            are conditioned on, here or around the call.
    """
    program, conditions = underlying(model)
    if isinstance(program, SequenceModel):
        _refuse_given_states(program.rnn, conditions, user)
        return program, conditions
    noise_off = " (for noise_off(model) use method='mean')" if user == PARTICLE_FILTER else ""
    handler = getattr(getattr(program, "func", None), "args", (program,))[0]  # of Pyro's, around the program
    remedy = f"pass the model itself, or its unroll or innovations view{noise_off}"
    if type(handler) in REMEDIES:
        remedy = REMEDIES[type(handler)][user.startswith("bound")]
    raise ValueError(f"{user} needs a SequenceModel, got {type(handler).__name__}; {remedy}")


def conditions_around_call() -> list[Any]:
    """The handlers that condition the sites of whatever is called now."""
    return [handler for handler in _PYRO_STACK if isinstance(handler, ConditionMessenger | DoMessenger)]


def _refuse_given_states(rnn: NoisyRNN, conditions: list[Any], user: str) -> None:
    """Raise a ValueError for given states or noise: ``z_l``, or the views' ``z_l_noise`` and ``z_l_t``."""
    states = tuple(f"{rnn.name}_{layer}_" for layer in rnn.noisy_layers)
    for handler in conditions + conditions_around_call():
        for name in handler.data:
            if f"{name}_".startswith(states) and not name.endswith("_mask"):  # masks of dropout are refused as such
                raise ValueError(f"{user} samples the states, but {name!r} is conditioned on; drop that condition")


def has_noisy_states(program: SequenceModel, batch: Batch, user: str = PARTICLE_FILTER) -> bool:
    """Whether any state is noisy.

    Raises:
        ValueError: dropout, or sampled weights or γ.
    """
    others = "method 'importance', 'ensemble' or 'mean'" if user == PARTICLE_FILTER else ""
    program.dropout.refuse(f"{user} does not support dropout masks", others)
    trace = poutine.trace(program).get_trace(batch.inputs, batch.targets, **batch.keywords)
    noisy = False
    for site in all_sites(prune_subsample_sites(trace)):
        is_state = isinstance(site["fn"], NoisyPath)
        noisy = noisy or is_state
        if not is_state and not site["is_observed"]:
            raise ValueError(
                f"{user} needs fixed weights and γ, but {site['name']!r} is sampled; condition on it "
                f"first, as in pyro.condition(model, {{{site['name']!r}: ...}})"
            )
    return noisy
