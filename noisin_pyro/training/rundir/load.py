"""Loading a run from its folder: configuration, data and best model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyro
import torch

from noisin_pyro.data import Corpus
from noisin_pyro.inference.guides import Guide
from noisin_pyro.models import SequenceModel
from noisin_pyro.training.build import build_guide, build_model, load_corpus
from noisin_pyro.training.config import Config, with_values
from noisin_pyro.training.rundir.checkpointer import load_best
from noisin_pyro.training.rundir.layout import read_config, require_same_data


@dataclass(frozen=True)
class LoadedRun:
    """A run that is loaded from its folder.

    Attributes:
        config: the run's, with the device and the data's root that it is loaded with.
        corpus: its data.
        model: its best model, on ``config.run.device``.
        guide: the guide that was trained with it; ``None`` where the prior was the guide.
    """

    config: Config
    corpus: Corpus
    model: SequenceModel
    guide: Guide | None


def load_run(folder: Path, device: str | None = None, root: Path | None = None) -> LoadedRun:
    """Load the best model of a finished or unfinished run, and its data. Call this, and use the model,
    within :func:`~noisin_pyro.training.run.program_settings`.

    Args:
        folder: a folder that ``train`` wrote, a twin's too.
        device: "cpu" or "cuda"; by default the run's own.
        root: where the data now are, in place of the run's ``data.root``.

    Raises:
        ValueError: no such run, a file of it that is damaged, or data that are not there or are others now;
            a call outside those settings.
    """
    if not pyro.settings.get("module_local_params"):
        raise ValueError("load_run makes a model whose parameters are its own: call it within program_settings()")
    given = {"data.root": root, "run.device": device}
    config = with_values(read_config(folder), {name: value for name, value in given.items() if value is not None})
    if config.run.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' is not available on this machine; take 'cpu'")
    corpus = load_corpus(config.data)
    require_same_data(folder, corpus)
    model = build_model(config, corpus).to(config.run.device)
    guide = build_guide(config, model)
    load_best(folder, model, guide)
    return LoadedRun(config, corpus, model, guide)
