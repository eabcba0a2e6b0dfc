"""Any optimiser of torch.optim, by name, and the averages that one of them keeps."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from noisin_pyro._lookup import known
from noisin_pyro.training.kinds import alike

# One needs the loss as a function, one sparse gradients, one nothing but matrices: the loop has none of these.
_UNFIT = {"Optimizer", "LBFGS", "SparseAdam", "Muon"}


def optimizer_class(name: str) -> Callable[..., torch.optim.Optimizer]:
    """The class of ``torch.optim`` of that name, upper and lower case alike.

    Raises:
        ValueError: no such optimiser, or one that a loop of single gradient steps cannot drive.
    """
    fit = {
        key: value
        for key, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and key not in _UNFIT
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
    """The optimiser of that name over ``parameters``.

    Averaged SGD is plain SGD beside which the mean of the weights after ``average_after`` steps is kept (default: of
    all): torch's own default, a mean that starts after a million steps, would never start, and its decay of weights
    and rate is not the published paper's.

    Weights decay as the optimiser itself defines it (L2: as if ½ λ‖θ‖² were added to the loss; AdamW's, beside the
    gradient), by default at its own rate, which is 0, but AdamW's 0.01; those that are ``spared`` do not.

    Raises:
        ValueError: a decay for an optimiser that has none.
    """
    chosen = optimizer_class(name)
    of_its_own: dict[str, Any] = {"lambd": 0.0, "t0": average_after or 0} if averages(name) else {}
    if weight_decay is not None and decay(name) is None:
        raise ValueError(f"weight decay {weight_decay:g}: {chosen.__name__} has none; leave it out, or take another")
    groups = _groups(parameters, decay(name) if weight_decay is None else weight_decay, spared)
    first = groups[0]["params"][0]
    if chosen in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD):  # the whole step in one pass over the weights
        of_its_own["fused"] = True
        if chosen is not torch.optim.SGD and first.is_cuda:
            of_its_own["capturable"] = True  # by a CUDA graph (stepper.py)
    return chosen(groups, lr=learning_rate, **of_its_own)


def decay(name: str) -> float | None:
    """The weight decay that the optimiser of that name has of itself; None if it knows none."""
    known = inspect.signature(optimizer_class(name)).parameters.get("weight_decay")
    return None if known is None else known.default


def no_weights(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of what is kept positive by a transform, γ and an emission's scale, which are no weights: decay
    would pull them towards the transform's value at 0."""
    return [parameter for name, parameter in module.named_parameters() if name.endswith("_unconstrained")]


def _groups(
    parameters: Iterable[nn.Parameter], weight_decay: float | None, spared: Iterable[nn.Parameter]
) -> list[dict[str, Any]]:
    """All in one group; with a decay, those that are spared in a second one. None: the optimiser knows no decay."""
    parameters, others = list(parameters), {id(parameter) for parameter in spared}
    if weight_decay is None:
        return [{"params": parameters}]
    if weight_decay == 0 or not others:
        return [{"params": parameters, "weight_decay": weight_decay}]
    decaying, kept = ([p for p in parameters if (id(p) in others) == is_spared] for is_spared in (False, True))
    return [{"params": decaying, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def load_state(optimizer: torch.optim.Optimizer, content: dict[str, Any]) -> None:
    """Take over what ``state_dict`` gave for an optimiser of the same class, options and shapes of parameters.

    Raises:
        ValueError: it is for another one. (torch itself only counts the parameters, and fails at a later step.)
    """
    example = copy.deepcopy(optimizer)
    for group in example.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    example.step()
    expected, state = example.state_dict()["state"], content["state"]
    if not all(number in expected and alike(kept, expected[number]) for number, kept in state.items()):
        raise ValueError(f"the state kept for {type(optimizer).__name__} is that of another optimizer or model")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, kept in state.items():  # torch gave all numbers the type of the parameter, rates and counters too
        loaded = optimizer.state[parameters[number]]
        loaded |= {key: loaded[key].to(value.dtype) for key, value in kept.items() if isinstance(value, torch.Tensor)}


def averages(name: str) -> bool:
    """Whether the optimiser of that name keeps an average of the weights."""
    return optimizer_class(name) is torch.optim.ASGD


@contextmanager
def averaged(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within, the parameters are their averages, where ``optimizer`` keeps any; after, they are what they were."""
    means = {parameter: state["ax"] for parameter, state in optimizer.state.items() if "ax" in state}
    held = {parameter: parameter.detach().clone() for parameter in means}
    _set(means)
    try:
        yield
    finally:
        _set(held)


@torch.no_grad()
def _set(values: dict[torch.Tensor, torch.Tensor]) -> None:
    for parameter, value in values.items():
        parameter.copy_(value)
