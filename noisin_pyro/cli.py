"""The command ``noisin``. A subcommand's code is imported when that subcommand runs."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import make_dataclass, replace
from functools import partial, reduce
from operator import or_
from typing import Annotated, Any

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from noisin_pyro.commands import SUMMARIES, load
from noisin_pyro.training.signals import Interrupted

_DESCRIPTION = """Noisy recurrent networks as Pyro programs.

noisin SUBCOMMAND --help lists its options."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Used in place of the command line's.

    Returns:
        0 on success; 1 if a reproduction has rows left; 2 after an error that the user can mend, with one line on
        stderr; 130 after Ctrl-C, 143 after SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show γ gets a question mark
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    arguments, status = list(sys.argv[1:] if arguments is None else arguments), 0
    os.environ.pop("MPLBACKEND", None)  # a notebook's, perhaps not installed here; the command draws without one
    try:
        if arguments[:1] == ["--version"]:
            from importlib.metadata import version  # as slow as all other imports here together

            print(f"noisin {version('noisin_pyro')}")
        else:
            command = _parse(arguments)
            with _logging_to_stderr():
                status = command.run() or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe, as in: noisin families | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt as stop:
        _print_error(stop, "interrupted")
        return 128 + (stop.signum if isinstance(stop, Interrupted) else signal.SIGINT)
    except (ValueError, ArithmeticError, OSError, RuntimeError, MemoryError) as error:  # RuntimeError: torch's own
        command = arguments[0] if arguments and isinstance(error, ValueError) else None
        _print_error(error, type(error).__name__, command)
        return 2
    return status


@contextlib.contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Print what is logged, above the progress bars."""
    from tqdm.contrib.logging import logging_redirect_tqdm

    logger, handler = logging.getLogger("noisin_pyro"), logging.StreamHandler(sys.stderr)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        with logging_redirect_tqdm([logger]):
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _print_error(error: BaseException, otherwise: str, command: str | None = None) -> None:
    """Print the error's first line and its notes, on one line; under torchrun, in one process."""
    first = str(error).splitlines()[0] if str(error) else otherwise
    if command in SUMMARIES:
        from noisin_pyro.commands._messages import with_option_names

        first = with_option_names(first, load(command))
    text = "noisin: " + "; ".join([first, *getattr(error, "__notes__", [])])
    if "TORCHELASTIC_RUN_ID" in os.environ:
        from noisin_pyro.training.distributed import log_once

        if not log_once(text):
            return
    print(text, file=sys.stderr)


def _parse(arguments: Sequence[str]) -> Any:
    """Make the subcommand that the arguments name, with its options.

    Raises:
        ValueError: The arguments cannot be parsed; the parser's message in one line.
    """
    name, *options = arguments or [""]
    if name not in SUMMARIES:
        return _in_one_line(partial(_parse_name, arguments))
    config, registry = (tyro.conf.OmitArgPrefixes,), _with_joined_docstrings()
    parse = partial(tyro.cli, load(name), prog=f"noisin {name}", args=options, config=config, registry=registry)
    command = _in_one_line(parse)
    if name == "train":
        command = command.with_stored_options(lambda default: _in_one_line(partial(parse, default=default)))
    return command


def _with_joined_docstrings() -> ConstructorRegistry:
    """The parser's rules, but for help that is wrapped as a paragraph: it would keep the breaks of our docstrings."""
    registry, is_nested = ConstructorRegistry(), False

    @registry.struct_rule
    def joined(info: StructTypeInfo) -> StructConstructorSpec | None:
        nonlocal is_nested
        if is_nested:  # None passes on to the parser's own rules
            return None
        is_nested = True
        spec = ConstructorRegistry.get_struct_spec(info)
        is_nested = False
        if not isinstance(spec, StructConstructorSpec):
            return None
        return replace(spec, fields=tuple(replace(field, helptext=partial(_joined, field)) for field in spec.fields))

    return registry


def _joined(field: StructFieldSpec) -> str | None:
    text = field.helptext() if callable(field.helptext) else field.helptext  # read from the source only to be printed
    return text and " ".join(text.split())  # None stands for the docstring of the field's type


def _parse_name(arguments: Sequence[str]) -> Any:
    """Print the help of ``noisin`` itself, or the error: no argument begins with a subcommand's name here."""

    def summary(text: str) -> Callable[[], None]:
        def subcommand() -> None: ...

        subcommand.__doc__ = text
        return subcommand

    subcommands = (
        Annotated[Any, tyro.conf.subcommand(name, constructor=summary(text))] for name, text in SUMMARIES.items()
    )
    version = Annotated[
        bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="print the version and exit", help_behavior_hint="")
    ]
    options = make_dataclass("Noisin", [("subcommand", reduce(or_, subcommands)), ("version", version, False)])
    config = (tyro.conf.OmitSubcommandPrefixes,)
    return tyro.cli(options, prog="noisin", description=_DESCRIPTION, args=arguments, config=config)


def _in_one_line(parse: Callable[[], Any]) -> Any:
    """Parse, with the parser's boxed message as the text of an error.

    Raises:
        ValueError: The message in one line: what is wrong, and the option that may have been meant.
    """
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            return parse()
    except SystemExit as stop:
        if stop.code == 0:  # after --help
            raise
    lines = [line.strip("╭╮╰╯│─ ") for line in message.getvalue().splitlines()[1:]]
    parts = "\n".join("" if set(line) == {"-"} else line for line in lines).strip().split("\n\n")
    hint = next((part for part in parts if part.startswith(("Perhaps", "Available"))), "")
    wrong = re.sub(r"^Error parsing [A-Z]\w*: ", "", " ".join(parts[0].splitlines()))
    raise ValueError(f"{wrong}. {' '.join(hint.splitlines()[:2])}" if hint else wrong)
