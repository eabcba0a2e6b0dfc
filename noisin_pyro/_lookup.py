"""Checks of arguments that all subpackages share: names, import paths, and whole numbers."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import inspect
import operator
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeGuard, TypeVar

T = TypeVar("T")


class BatchError(ValueError):
    """A batch that a model refuses. Pyro's traces append their shapes to an error; here the message stays as it is."""

    def __init__(self, message: str) -> None:
        super().__init__(message.partition("Trace Shapes:")[0].rstrip())


def known(kind: str, name: object, names: Iterable[str]) -> str:
    """The name itself, if it is one of ``names``.

    Raises:
        ValueError: if it is not: lists them and suggests the nearest.
    """
    names = list(names)
    if isinstance(name, str) and name in names:
        return name
    by_lower_case = {each.lower(): each for each in names}
    nearest = difflib.get_close_matches(str(name).lower(), by_lower_case, n=1, cutoff=0.5)
    hint = f"; did you mean {by_lower_case[nearest[0]]!r}?" if nearest else ""
    raise ValueError(f"{kind} must be one of {', '.join(names)}, got {name!r}{hint}")


def named(kind: str, given: str | T, table: Mapping[str, type[T]], base: type[T], *arguments: Any) -> T:
    """The instance itself, or a new one of that name, made with ``arguments``.

    Raises:
        ValueError: for an unknown name.
    """
    return given if isinstance(given, base) else table[known(kind, given, table)](*arguments)


def is_import_path(text: object) -> TypeGuard[str]:
    """Whether a text names an object to import, ``"package.module:name"``."""
    return isinstance(text, str) and re.fullmatch(r"[^\W\d][\w.]*:[^\W\d][\w.]*", text) is not None


def imported(kind: str, path: str, base: type[T], remedy: str = "", **arguments: Any) -> T:
    """The object that an import path names, or that the class or function there makes.

    Modules are also looked for in the current folder.

    Args:
        kind: the option's name in messages.
        path: ``"package.module:name"``.
        base: the class of the object.
        remedy: how to get one from something else, for messages.
        **arguments: passed to the class or function, in this order; their names are for messages.

    Raises:
        ValueError: if there is no such module or name, if its code cannot be parsed, or if it leads to something other
            than a ``base`` or does not take the arguments.
    """
    module, _, name = path.partition(":")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # at the end, so that it hides no installed module
    try:
        value = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except SyntaxError as error:
        raise ValueError(f"{kind} {path!r} cannot be imported: {_first_line(error)}; correct the module") from error
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{kind} {path!r} cannot be imported ({error}); give MODULE:NAME of a module in the current folder, on "
            "PYTHONPATH or installed"
        ) from error
    given = ", ".join(f"{argument}={each!r}" for argument, each in arguments.items())
    expected = (
        f"{kind} {path!r} must be a {base.__name__}, or a class or function that makes one in the call "
        f"'{name}({given})'"  # in quotes, as the command writes options for names of arguments elsewhere
    )
    remedy = remedy and f"; {remedy}"
    made: Any = value
    if not isinstance(value, base) and callable(value):
        try:
            call = _bound(value, arguments)
        except TypeError as error:
            raise ValueError(f"{expected}, got one that takes other arguments ({error}){remedy}") from error
        made = call()
    if not isinstance(made, base):
        raise ValueError(f"{expected}, got a {type(made).__name__}{remedy}")
    return made


def _bound(function: Callable[..., Any], arguments: dict[str, Any]) -> Callable[[], Any]:
    """The call with these arguments: by name if the function has parameters of these names, else in their order.

    Raises:
        TypeError: it takes neither.
    """
    is_class = isinstance(function, type)  # whose own signature is that of its metaclass, such as Pyro's
    first = (None,) if is_class else ()
    try:
        signature = inspect.signature(function.__init__ if is_class else function)
    except ValueError:  # of some functions in C
        return functools.partial(function, *arguments.values())
    with contextlib.suppress(TypeError):
        signature.bind(*first, **arguments)
        return functools.partial(function, **arguments)
    signature.bind(*first, *arguments.values())
    return functools.partial(function, *arguments.values())


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def as_number(value: Any) -> Any:
    """A number of NumPy or torch as Python's. Anything else is returned as it is, as is a tensor with a gradient."""
    is_number = getattr(value, "shape", None) == () and not getattr(value, "requires_grad", False)
    return value.item() if is_number else value


def boolean(argument: str, value: Any) -> bool:
    """True or False, also as 1 or 0, or of NumPy or torch.

    Raises:
        ValueError: for anything else, such as "no", which Python takes for true.
    """
    number = as_number(value)
    if not isinstance(number, int) or number not in (0, 1):
        raise ValueError(f"{argument} must be True or False, got {value!r}")
    return bool(number)


def refuse_others(owner: str, given: Mapping[str, Any], supported: Mapping[str, tuple[Any, str]]) -> None:
    """Check keywords of which one value is supported each.

    Args:
        owner: what has been called.
        given: the keywords.
        supported: that value of each, and what to do in place of any other.

    Raises:
        ValueError: for another value.
        TypeError: for an unknown keyword.
    """
    for name, value in given.items():
        if name not in supported:
            raise TypeError(f"{owner} got an unexpected keyword argument {name!r}")
        only, remedy = supported[name]
        if value != only:
            raise ValueError(f"{name}={value!r} is not supported: {remedy}")


def integer(argument: str, value: Any, minimum: int = 1) -> int:
    """A whole number as an ``int``, from any type that is one (numpy's, too).

    Raises:
        ValueError: for another type, a boolean, or a number below ``minimum``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = minimum - 1
    if isinstance(value, bool) or number < minimum:
        expected = "a positive integer" if minimum == 1 else f"an integer of at least {minimum}"
        raise ValueError(f"{argument} must be {expected}, got {value!r}")
    return number
