"""Data that a command reads in place of a run's own."""

from __future__ import annotations

from pathlib import Path

import torch

from noisin_pyro.data import Sequences, from_frame, load_music
from noisin_pyro.data.table_files import read_table
from noisin_pyro.training.rundir.load import LoadedRun


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
