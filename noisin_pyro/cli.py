"""The command ``noisin``: a thin face over the library."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from noisin_pyro import noise
from noisin_pyro.training import Config
from noisin_pyro.training import train as train_run


def train(config: Annotated[Config, tyro.conf.arg(name="")]) -> None:
    """Train a noisy recurrent network and its deterministic twin, and compare them.

    Without options: on pydocs, the text of Python's own language reference. The run's folder holds the configuration,
    the log, the best model, the learning curves and the result.
    """
    result = train_run(config)
    print(result.table())
    print(f"\nlearning curves: {result.folder / 'curves.png'}")


def families() -> None:
    """List the families of noise, with their forms and options."""


COMMANDS = {"train": train, "families": families}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something that the user can mend, told in one line on stderr."""
    try:
        tyro.extras.subcommand_cli_from_dict(
            COMMANDS,
            prog="noisin",
            description="Noisy recurrent networks as Pyro programs.",
            args=arguments,
            config=(tyro.conf.OmitArgPrefixes,),
        )
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"noisin: {error}", file=sys.stderr)
        return 2
    return 0
