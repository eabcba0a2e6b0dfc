"""Errors of the Python functions in the words of the command: ``num_samples`` is ``--samples``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Annotated, Any, get_origin, get_type_hints

import tyro.conf

# Arguments of functions that a subcommand calls, and its option where that has another name.
_ARGUMENTS = {"num_samples": "samples", "num_steps": "steps", "log_probs": "per-token", "root": "data-root"}


def with_option_names(text: str, command: type[Any]) -> str:
    """The message with a subcommand's options in place of the names of arguments and fields.

    A name of several words is replaced anywhere (``hidden size``, ``min_count``), a single word only where it begins
    the message or has a value. Quotations and paths stay as they are.
    """
    options = set(_options(command)) | {"min-count", "max-vocabulary"}  # of noisin train, which errors on words name
    names = {re.sub("[-_]", "[ _]", option): option for option in options}
    names |= {argument: option for argument, option in _ARGUMENTS.items() if option in options}
    long = [name for name in names if not name.isalpha() or name in _ARGUMENTS]
    short = [name for name in names if name.isalpha()]
    pattern = rf"""(?x)
        '[^']*' | "[^"]*" | [^\s='"]*/\S*
        | (?<![\w.-]) (?P<long> {_any(long)} ) (?![\w-])
        | ^ (?P<first> {_any(short)} ) (?= \ (?:must|is|are|and)\b | \ ['"(\d] | [=:] )
        | (?<![\w.-]) (?P<valued> {_any(short)} ) (?= = | \ \S+\ \(there: )
    """

    def option(match: re.Match[str]) -> str:
        name = match[match.lastgroup] if match.lastgroup else None
        if name is None:
            return match[0]
        return "--" + (_ARGUMENTS[name] if name in _ARGUMENTS else re.sub("[ _]", "-", name))

    return re.sub(r"--([\w-]+)=(True|False)\b", _flag, re.sub(pattern, option, text))


def _flag(match: re.Match[str]) -> str:
    return f"--{match[1]}" if match[2] == "True" else f"--no-{match[1]}"


def _any(names: list[str]) -> str:
    return "|".join(sorted((name.replace(" ", r"\ ") for name in names), key=len, reverse=True)) or r"(?!)"


def _options(command: type[Any]) -> Iterator[str]:
    """The names of the options of a subcommand, without ``--``."""
    for name, hint in get_type_hints(command, include_extras=True).items():
        notes = hint.__metadata__ if get_origin(hint) is Annotated else ()
        kind = hint.__origin__ if notes else hint
        if isinstance(kind, type) and is_dataclass(kind):
            yield from _options(kind)
        elif tyro.conf.Positional not in notes:
            yield next((note.name for note in notes if getattr(note, "name", None)), name.replace("_", "-"))
