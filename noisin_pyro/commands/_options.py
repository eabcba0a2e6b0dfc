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
NewFile = Annotated[Path | None, Named(metavar="FILE", help_behavior_hint="")]


def require_seed(seed: int) -> None:
    """Refuse a seed that not every generator takes.

    Raises:
        ValueError: it is negative or too large.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be from 0 to 2**32 - 1, got {seed}")


def require_new(path: Path | None) -> None:
    """Refuse a file that cannot be written, before the work for it is done.

    Raises:
        ValueError: something is there already (nothing is overwritten, least of all a run), or no folder for it is.
    """
    if path is not None and path.exists():
        raise ValueError(
            f"{str(path)!r} is there already, and nothing is overwritten; choose another name, or remove it"
        )
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"{str(path.parent)!r} is not a folder; make it, or choose another place for {path.name!r}")


def cut(config: Config, eval_batch_size: int | None, window: int | None) -> Data:
    """A run's way of reading held-out data, with what these options change.

    Raises:
        ValueError: a size that the configuration refuses.
    """
    given = {"data.eval_batch_size": eval_batch_size, "data.window": window}
    return with_values(config, {name: value for name, value in given.items() if value is not None}).data
