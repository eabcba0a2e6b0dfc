"""Options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro.conf

from noisin_pyro.training import Config, Data
from noisin_pyro.training.config import with_values
from noisin_pyro.training.options import Named, default

RunFolder = tyro.conf.Positional[Annotated[Path, Named(metavar="FOLDER")]]
RunFolders = tyro.conf.Positional[
    Annotated[tuple[Path, ...], Named(metavar="FOLDER [FOLDER ...]", help_behavior_hint="")]
]
Device = Annotated[Literal["cpu", "cuda"] | None, default("the run's", "{cpu,cuda}")]
DataRoot = Annotated[Path | None, default("the run's; or $NOISIN_DATA, the cache, a download", "FOLDER")]
Imports = Annotated[tuple[str, ...], Named(metavar="MODULE:NAME", help_behavior_hint="")]
NewFile = Annotated[Path | None, Named(metavar="FILE", help_behavior_hint="")]


def require_seed(seed: int) -> None:
    """Raise for a seed that not every generator accepts.

    Raises:
        ValueError: it is negative or too large.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to 2**32 - 1, got {seed}")


def require_new(path: Path | None) -> None:
    """Raise for a file that cannot be written, before its content is computed.

    Raises:
        ValueError: the file exists already, since nothing is overwritten, or its folder does not.
    """
    if path is not None and path.exists():
        raise ValueError(f"{str(path)!r} exists, and nothing is overwritten; choose another name, or remove it")
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"{str(path.parent)!r} is not a folder; create it, or choose another folder for {path.name!r}")


def cut(config: Config, eval_batch_size: int | None, window: int | None) -> Data:
    """The options of a run's data, changed by those that are given.

    Raises:
        ValueError: a size that the configuration refuses.
    """
    from noisin_pyro.training.build import is_table  # needs torch, for which --help does not wait

    if window is not None and is_table(config.data):
        raise ValueError(f"window {window} is for texts; held-out series are read whole: leave it out")
    given = {"data.eval_batch_size": eval_batch_size, "data.window": window}
    return with_values(config, {name: value for name, value in given.items() if value is not None}).data
