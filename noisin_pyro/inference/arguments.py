"""Checks of what functions of inference are given: data, and programs that can run on them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pyro.nn import PyroModule
from torch import nn

from noisin_pyro.data import Sequences, Stream
from noisin_pyro.inference.guides.view import program_of


def check_data(data: object) -> None:
    """Raise a ``ValueError`` for anything but sequences or a stream."""
    if not isinstance(data, Sequences | Stream):
        raise ValueError(
            f"data must be Sequences, a Series or a Stream, got {type(data).__name__}; make them from tensors by "
            "data.Sequences(inputs, targets)"
        )


def check_programs(data: Sequences | Stream, model: object, guide: object, *keywords: str) -> None:
    """Check that a model and a guide, if there is one, can be called with the arguments that go with the data.

    Args:
        keywords: what they are called with beside ``lengths``, and ``mask`` if targets are missing.

    Raises:
        ValueError: something else than a program, or one that lacks one of these arguments.
    """
    has_mask = isinstance(data, Sequences) and data.mask is not None
    for name, program in (("model", model), ("guide", guide)):
        if program is None and name == "guide":
            continue
        if not callable(program):
            raise ValueError(
                f"{name} must be a program, such as a SequenceModel, got {type(program).__name__}; that of a run is "
                f"load(folder).{name}"
            )
        known = _keywords(program_of(program))
        if known is None:
            continue
        if has_mask and "mask" not in known:
            raise ValueError(
                f"data has missing targets, but {name} has no argument mask; add mask=None to its arguments, and mask "
                "its observed site by it"
            )
        if missing := [keyword for keyword in ("lengths", *keywords) if keyword not in known]:
            raise ValueError(
                f"{name} has no argument {' or '.join(missing)}; it is called as SequenceModel is, with arguments "
                "(inputs, targets=None, state=None, lengths=None, mask=None)"
            )


def _keywords(program: Callable[..., Any]) -> set[str] | None:
    """The names of a program's arguments; None if it takes any."""
    kind: Any = type(program)
    calls_forward = isinstance(program, nn.Module) and kind.__call__ in (nn.Module.__call__, PyroModule.__call__)
    function: Any = program
    if calls_forward and kind.forward is not nn.Module.forward:
        function = function.forward
    try:  # a wrapper may take more than what it wraps
        parameters = inspect.signature(function, follow_wrapped=False).parameters
    except (TypeError, ValueError):  # of a built-in function
        return None
    is_open = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return None if is_open else {*parameters}
