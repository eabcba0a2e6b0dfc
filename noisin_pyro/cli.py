"""The command ``noisin``: a thin face over the library."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, TextIO, cast

import tyro

from noisin_pyro.commands import Compare, Evaluate, Families, Generate, Reproduce, Sweep
from noisin_pyro.training import Config, train
from noisin_pyro.training.distributed import first_to_tell
from noisin_pyro.training.folder import CURVES
from noisin_pyro.training.interrupts import Interrupted
from noisin_pyro.training.resume import refuse_contradictions, stored

_TRAIN = """Train a noisy recurrent network and its deterministic twin, and compare them.

Without options: on pydocs, the text of Python's own language reference.

The run's folder holds configuration, log, best model, curves and result.

torchrun --nproc-per-node N --no-python noisin train: in N processes, or GPUs."""


Other = Sweep | Evaluate | Compare | Generate | Families | Reproduce


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: in place of those of the command line.

    Returns:
        0; 2 after anything that the user can mend, told in one line on stderr; 130 after Ctrl-C, 143 after SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):  # a terminal that has no γ shows a mark in its place
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        match _parse(arguments):
            case Config() as config:
                _train(*_as_in_its_folder(config, arguments))
            case command:
                command.run()
        sys.stdout.flush()
    except BrokenPipeError:  # a reader that has seen enough, as in: noisin families | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt as stop:
        _tell(stop, "interrupted")
        return 128 + (stop.signum if isinstance(stop, Interrupted) else signal.SIGINT)
    except (ValueError, ArithmeticError, OSError, RuntimeError, MemoryError) as error:  # RuntimeError: torch's own
        _tell(error, type(error).__name__)
        return 2
    return 0


def _tell(error: BaseException, otherwise: str) -> None:
    """Say the error in one line, with what else was noted on the way."""
    first = str(error).splitlines()[0] if str(error) else otherwise
    _print("noisin: " + "; ".join([first, *getattr(error, "__notes__", [])]), sys.stderr)


def _print(text: str, stream: TextIO) -> None:
    if first_to_tell(text):
        print(text, file=stream)


def _parse(arguments: Sequence[str] | None, default: Config | None = None) -> Config | Other:
    """The command that the arguments name, with its options; what they leave out is as in ``default``.

    Raises:
        ValueError: arguments that make none, with the parser's message in one line.
    """
    training = tyro.conf.subcommand("train", description=_TRAIN, default=default or Config())
    message = io.StringIO()
    try:
        with contextlib.redirect_stderr(message):
            return tyro.cli(
                cast(Any, Annotated[Config, training] | Other),
                prog="noisin",
                description="Noisy recurrent networks as Pyro programs.",
                args=arguments,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if stop.code == 0:
            raise
        raise ValueError(_in_one_line(message.getvalue())) from None


def _in_one_line(box: str) -> str:
    """The parser's message out of its frame: what is wrong, and the option that may have been meant."""
    lines = [line.strip("╭╮╰╯│─ ") for line in box.splitlines()[1:]]
    parts = "\n".join("" if set(line) == {"-"} else line for line in lines).strip().split("\n\n")
    hint = next((part for part in parts if part.startswith(("Perhaps", "Available"))), "")
    wrong = " ".join(parts[0].splitlines()).removeprefix("Error parsing Config: ")
    return f"{wrong}. {' '.join(hint.splitlines()[:2])}" if hint else wrong


def _as_in_its_folder(config: Config, arguments: Sequence[str] | None) -> tuple[Config, int | None]:
    """The configuration itself, or, of a run to resume, that of its folder, and more epochs than it was asked for.

    Raises:
        ValueError: nothing there to resume, or options that contradict it.
    """
    if config.run.resume is None:
        return config, None
    before = stored(config.run.resume)
    given = _parse(arguments, default=before)  # read again: so an option given as its default counts as given
    assert isinstance(given, Config)
    if (epochs := given.optimisation.epochs) <= before.optimisation.epochs:
        epochs = None
    else:
        given = replace(given, optimisation=replace(given.optimisation, epochs=before.optimisation.epochs))
    refuse_contradictions(given, before)
    return given, epochs


def _train(config: Config, epochs: int | None) -> None:
    result = train(config, epochs=epochs)
    shown = "perplexity" if result.measure == "perplexity" else "nats per step"
    samples = f"; ensemble of {config.run.ensemble_samples} noisy runs" if result.ensemble is not None else ""
    text = f"{shown}, noise off{samples}\n{result.table()}\nlearning curves: {result.folder / CURVES}"
    _print(text, sys.stdout)
