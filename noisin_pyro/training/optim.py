"""Optimizers of torch.optim by name, averaged weights, and the schedules of the learning rate and of the KL weight."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from noisin_pyro._lookup import known
from noisin_pyro.training.type_checks import same_structure

# One needs the loss as a function, one sparse gradients, one nothing but matrices: the loop has none of these.
_UNSUPPORTED = {"Optimizer", "LBFGS", "SparseAdam", "Muon"}
FULL_EPOCHS = 4
"""Epochs at the full rate in the paper's schedule for WikiText-2 (section 4)."""
DIVISOR = 1.2
"""What the published paper divides the rate by."""


def optimizer_class(name: str) -> Callable[..., torch.optim.Optimizer]:
    """The class of ``torch.optim`` of that name, upper and lower case alike.

    Raises:
        ValueError: no such optimizer, or one that a loop of single gradient steps cannot drive.
    """
    fit = {
        key: value
        for key, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and key not in _UNSUPPORTED
    }
    in_any_case = {key.lower(): key for key in fit}
    return fit[known("optimizer", in_any_case.get(name.lower(), name), fit)]


def build_optimizer(
    name: str,
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    average_after: int | None = None,
    weight_decay: float | None = None,
    spared: Iterable[nn.Parameter] = (),
) -> torch.optim.Optimizer:
    """The optimizer of that name over ``parameters``.

    ``ASGD`` is plain SGD that also averages the weights of the steps after ``average_after`` (default: of all).
    torch's own defaults start the average after a million steps and decay the weights and the learning rate, which
    the published paper does not.

    Weight decay is what the optimizer defines it to be: an L2 penalty ½ λ‖θ‖² on the loss, or AdamW's decoupled decay.
    It defaults to the optimizer's own, which is 0 for most and 0.01 for AdamW. Parameters in ``spared`` do not decay.

    Raises:
        ValueError: a weight decay for an optimizer that does not support it.
    """
    chosen = optimizer_class(name)
    # torch's step t sets the weight of step t + 1 in the mean to 1 / max(1, t - t0): the first of all must have 1.
    own_options: dict[str, Any] = {"lambd": 0.0, "t0": (average_after or 0) - 1} if averages(name) else {}
    if weight_decay is not None and default_weight_decay(name) is None:
        raise ValueError(f"weight decay {weight_decay:g}: {chosen.__name__} has none; leave it out, or take another")
    groups = _groups(parameters, default_weight_decay(name) if weight_decay is None else weight_decay, spared)
    first = groups[0]["params"][0]
    if chosen in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD):  # the whole step in one pass over the weights
        own_options["fused"] = True
        if chosen is not torch.optim.SGD and first.is_cuda:
            own_options["capturable"] = True  # by a CUDA graph (train_step.py)
    return chosen(groups, lr=learning_rate, **own_options)


def default_weight_decay(name: str) -> float | None:
    """The default weight decay of the named optimizer; None if it does not support weight decay."""
    parameter = inspect.signature(optimizer_class(name)).parameters.get("weight_decay")
    return None if parameter is None else parameter.default


def spared_from_decay(module: nn.Module) -> list[nn.Parameter]:
    """The unconstrained parameters of γ and of an emission's scale: decay would pull these towards the value of their
    transform at 0."""
    return [parameter for name, parameter in module.named_parameters() if name.endswith("_unconstrained")]


def _groups(
    parameters: Iterable[nn.Parameter], weight_decay: float | None, spared: Iterable[nn.Parameter]
) -> list[dict[str, Any]]:
    """Parameter groups: one for all, or, with weight decay, a second one without it for those that are spared.

    A ``weight_decay`` of None is for an optimizer that does not support it.
    """
    parameters, others = list(parameters), {id(parameter) for parameter in spared}
    if weight_decay is None:
        return [{"params": parameters}]
    if weight_decay == 0 or not others:
        return [{"params": parameters, "weight_decay": weight_decay}]
    decaying, without = ([p for p in parameters if (id(p) in others) == is_spared] for is_spared in (False, True))
    return [{"params": decaying, "weight_decay": weight_decay}, {"params": without, "weight_decay": 0.0}]


def load_state(optimizer: torch.optim.Optimizer, content: dict[str, Any]) -> None:
    """Take over what ``state_dict`` gave for an optimizer of the same class, options and shapes of parameters.

    Raises:
        ValueError: it is for another one. (torch itself only counts the parameters, and fails at a later step.)
    """
    example = copy.deepcopy(optimizer)
    for group in example.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    example.step()
    expected, state = example.state_dict()["state"], content["state"]
    if not all(number in expected and same_structure(values, expected[number]) for number, values in state.items()):
        raise ValueError(f"the checkpoint's state of {type(optimizer).__name__} is that of another optimizer or model")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, values in state.items():  # torch gave all numbers the type of the parameter, rates and counters too
        loaded = optimizer.state[parameters[number]]
        loaded |= {key: loaded[key].to(value.dtype) for key, value in values.items() if isinstance(value, torch.Tensor)}


def averages(name: str) -> bool:
    """Whether the optimizer of that name keeps an average of the weights."""
    return optimizer_class(name) is torch.optim.ASGD


@contextmanager
def averaged_weights(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within, the parameters are the averages that averaged SGD keeps; with other optimizers nothing changes."""
    means = {parameter: state["ax"] for parameter, state in optimizer.state.items() if "ax" in state}
    before = {parameter: parameter.detach().clone() for parameter in means}
    _set(means)
    try:
        yield
    finally:
        _set(before)


@torch.no_grad()
def _set(values: dict[torch.Tensor, torch.Tensor]) -> None:
    for parameter, value in values.items():
        parameter.copy_(value)


def scheduled_rate(schedule: str, start: float, valid_nats: Sequence[float], divisor: float | None = None) -> float:
    """The learning rate of the epoch after those whose validations are given.

    A function of the log alone: no state of it has to be kept in a checkpoint. (``torch.optim.lr_scheduler`` has state,
    and warns where a run is resumed right before a scheduler's step.)

    Args:
        schedule: ``"fixed"``; ``"halve"``: half of the epoch's before, in every epoch after the fourth (the paper,
            section 4, WikiText-2); ``"divide"``: by ``divisor`` (default: 1.2) after each epoch that is not better in
            validation than all before it (the published paper).
        start: rate of the first epoch.
        valid_nats: validation of each epoch done, in order.
    """
    if schedule == "halve":
        return start * 0.5 ** max(0, len(valid_nats) + 1 - FULL_EPOCHS)
    if schedule == "divide":
        worse = sum(nats >= min(valid_nats[:epoch]) for epoch, nats in enumerate(valid_nats) if epoch > 0)
        return start * (divisor or DIVISOR) ** -worse
    return start


def set_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = value
    for state in optimizer.state.values():
        if "eta" in state:  # averaged SGD reads its rate here, and would follow a step late
            state["eta"].fill_(value)


def kl_weight(annealing: int | None, epoch: int) -> float:
    """Weight of the guide's KL in an epoch (the first is 1): it rises in equal steps to 1 in epoch ``annealing``."""
    return 1.0 if annealing is None else min(1.0, epoch / annealing)
