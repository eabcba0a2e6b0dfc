"""Data that a command reads: a run's own, or others in their place."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from noisin_pyro.data import Sequences, from_frame, load_music
from noisin_pyro.data.table_files import read_table
from noisin_pyro.training.rundir.load import LoadedRun


def own_part(trained: LoadedRun, split: str) -> Tensor | Sequences:
    """One part of the data of a run.

    Raises:
        ValueError: data that are not there, or are others now; names the option that reads other data.
    """
    try:
        return getattr(trained.corpus_as_read, split)
    except ValueError as error:
        option = "--data" if trained.vocabulary is None else "--text"
        error.add_note(f"{option} FILE reads another file in place of the run's own")
        raise


def sequences_from(trained: LoadedRun, path: Path, split: str) -> Sequences:
    """A table with the columns of a run's, or one part of a .mat file of music.

    Raises:
        ValueError: a file that is missing or damaged, or a table with other columns.
    """
    if trained.series is not None:
        data = from_frame(read_table(path, trained.series.columns.id), format=trained.series, dtype=torch.float64)
        trained.model.emission.check_values(data.targets.to(next(trained.model.parameters())))
        return data
    return getattr(load_music(path), split)
