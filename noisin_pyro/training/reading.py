"""A run's folder, read back: configuration, data and best model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from noisin_pyro.data import Corpus
from noisin_pyro.models import SequenceModel
from noisin_pyro.training import checkpoint
from noisin_pyro.training.build import build_model, load_corpus
from noisin_pyro.training.config import Config, from_json
from noisin_pyro.training.folder import BEST, CONFIG


@dataclass(frozen=True)
class Trained:
    """What a run's folder holds.

    Attributes:
        config: what the run was told, with the device and the data's root that it is read with.
        corpus: its data, read anew.
        model: its best model, on ``config.run.device``.
    """

    config: Config
    corpus: Corpus
    model: SequenceModel


def read_run(folder: Path, device: str | None = None, root: Path | None = None) -> Trained:
    """The best model of a finished or unfinished run, and the data it was trained on.

    Args:
        folder: a folder that ``train`` wrote, a twin's too.
        device: "cpu" or "cuda"; by default the run's own.
        root: where the data now are, in place of the run's ``data.root``.

    Raises:
        ValueError: no such run, a file of it that is damaged, or data that are not there or are others now.
    """
    config = _read_config(folder / CONFIG)
    data, run = config.data, config.run
    config = dataclasses.replace(
        config,
        data=data if root is None else dataclasses.replace(data, root=root),
        run=run if device is None else dataclasses.replace(run, device=device),
    )
    if config.run.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' is not available on this machine; take 'cpu'")
    try:
        corpus = load_corpus(config.data)
        model = build_model(config, corpus)
    except (TypeError, AttributeError) as error:  # a value of another type than its field's
        raise ValueError(f"{folder / CONFIG} is damaged ({_first_line(error)}); train anew to write one") from error
    best = _read_best(folder / BEST)
    try:
        model.load_state_dict(best["model"])
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ValueError(
            f"{folder / BEST} does not fit the model that {CONFIG} and the data make: one of them has changed since it "
            "was trained (pydocs changes with the version of Python); restore it, or train anew"
        ) from error
    return Trained(config, corpus, model.to(config.run.device))


def _read_config(path: Path) -> Config:
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"{str(path.parent)!r} is not a run's folder: it has no {path.name}") from error
    try:
        return from_json(content.decode())
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({_first_line(error)}); train anew to write one") from error


def _read_best(path: Path) -> dict[str, Any]:
    try:
        return checkpoint.load(path)
    except FileNotFoundError as error:
        raise ValueError(
            f"{str(path.parent)!r} has no {path.name}: no epoch of this run was done, or it was removed; train anew"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
