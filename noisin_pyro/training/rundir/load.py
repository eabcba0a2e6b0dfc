"""Loading a run from its folder: configuration, vocabulary, best model and, where they are needed, its data."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyro
import torch

from noisin_pyro.data import Corpus, SeriesFormat, Vocabulary
from noisin_pyro.inference.guides import Guide
from noisin_pyro.models import SequenceModel
from noisin_pyro.training.build import build_guide, build_model, load_corpus
from noisin_pyro.training.config import Config, with_values
from noisin_pyro.training.description import DATA, DataDescription
from noisin_pyro.training.rundir.checkpointer import load_best
from noisin_pyro.training.rundir.layout import read_config, require_same_data


@dataclass(frozen=True)
class LoadedRun:
    """A run that is loaded from its folder.

    Attributes:
        folder: the run's.
        config: the run's, with the device and the data's root that it is loaded with.
        vocabulary: that of a text; else None.
        series: how a table is read and scaled: the format for :func:`~noisin_pyro.data.from_frame`; else None.
        model: its best model, on ``config.run.device``.
        guide: the guide that was trained with it; ``None`` where the prior was the guide.
    """

    folder: Path
    config: Config
    vocabulary: Vocabulary | None = field(repr=False)
    series: SeriesFormat | None = field(repr=False)
    model: SequenceModel
    guide: Guide | None

    @cached_property
    def corpus(self) -> Corpus:
        """The data that the run was trained on, read where ``config.data`` says; sequences in the run's precision.

        Raises:
            ValueError: data that are not there, or are others now.
        """
        return self.corpus_as_read.to(getattr(torch, self.config.run.precision))

    @cached_property
    def corpus_as_read(self) -> Corpus:
        """The same data as they were read, those of a table in float64."""
        return _read_data(self.folder, self.config)


def load_run(
    folder: Path, device: str | None = None, root: Path | None = None, imports: Collection[str] = ()
) -> LoadedRun:
    """Load the best model of a finished or unfinished run. The random number generators stay as they are.

    Args:
        folder: a folder that ``train`` wrote, a twin's too.
        device: "cpu" or "cuda"; by default the run's own, or the CPU where that is not available.
        root: where the data now are, in place of the run's ``data.root``.
        imports: import paths in the configuration that may be followed.

    Raises:
        ValueError: no such run, a file of it that is damaged, or an import path that ``imports`` lacks; for a run
            of version 0.1, which has no ``data.json``, data that are not there or are others now.
    """
    config = read_config(folder)
    config.require_imports(imports, folder)
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' is not available on this machine; take 'cpu'")
    run, available = config.run, "cuda" if torch.cuda.is_available() else "cpu"
    device = device or (run.device if run.device == available else "cpu")
    changes = {"run.device": device, "run.tf32": run.tf32 and device == "cuda"}
    config = with_values(config, changes if root is None else {**changes, "data.root": root})
    description = DataDescription.read(folder) or DataDescription.of(_read_data(folder, config))
    # A model made with parameters of its own works with Pyro's global store as well, but not the other way round.
    with torch.random.fork_rng([]), pyro.settings.context(module_local_params=True):
        model = build_model(config, description).to(device)
        guide = build_guide(config, model)
    load_best(folder, model, guide)
    return LoadedRun(folder, config, description.vocabulary, description.series, model, guide)


def _read_data(folder: Path, config: Config) -> Corpus:
    try:
        corpus = load_corpus(config.data, config.model.emission)
    except ValueError as error:
        if not (folder / DATA).exists():
            error.add_note(f"a run without {DATA}, of version 0.1, needs the data that it was trained on")
        raise
    require_same_data(folder, corpus)
    return corpus
