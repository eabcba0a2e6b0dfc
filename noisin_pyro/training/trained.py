"""Trained models for use in Python: ``load`` reads a run's folder, ``export`` makes a network without Pyro."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from noisin_pyro.models import SequenceModel
from noisin_pyro.models.export import PlainNetwork, plain_network
from noisin_pyro.training.result import Result, read
from noisin_pyro.training.rundir.layout import RESULT
from noisin_pyro.training.rundir.load import LoadedRun, load_run


@dataclass(frozen=True)
class TrainedRun(LoadedRun):
    """A run that is loaded from its folder.

    Attributes:
        folder: the run's.
        config: its configuration, with the device that it is loaded on.
        vocabulary: that of a text; else None.
        series: how a table is read and scaled: the format for :func:`~noisin_pyro.data.from_frame`; else None.
        model: its best model.
        guide: the guide that was trained with it; None where the prior was the guide.
        corpus: its data, which are read on first use where ``config.data`` says.
        result: its result and, if it has one, its twin's; None for a run that is not finished.
    """

    result: Result | None


def load(folder: str | Path, device: str | None = None, imports: Collection[str] = ()) -> TrainedRun:
    """Load a trained model from its run's folder, or from a copy of it. The training data are not needed.

    ``run.model`` and ``run.guide`` are ready for :func:`~noisin_pyro.evaluate`, :func:`~noisin_pyro.generate` and
    further training, ``run.vocabulary`` encodes texts, and ``run.corpus`` reads the data if they are there. With Pyro's
    global parameter store, the model's parameters have names of their own there.

    Nothing in the folder is executed, so it may be a stranger's: weights are loaded with ``weights_only=True``, and
    import paths in the configuration are refused unless ``imports`` has them.

    Args:
        folder: what :func:`~noisin_pyro.train` or ``noisin train`` wrote, or the ``deterministic`` folder in it.
        device: "cpu" or "cuda"; by default the run's own, or the CPU where that is not available.
        imports: import paths of cells, noises or emissions in the configuration (``"mypackage.cells:Leaky"``) that may
            be imported.

    Raises:
        ValueError: not a run's folder, a file in it that is damaged, or an import path that ``imports`` lacks. A run of
            version 0.1 has no ``data.json``: then its data must be where they were, and the same.
    """
    run = load_run(Path(folder).expanduser(), device, imports=imports)

    def result(folder: Path) -> Result | None:
        measure = "nats" if run.vocabulary is None else "perplexity"
        return read(folder, measure, imports) if (folder / RESULT).exists() else None

    own = result(run.folder)
    twin = own and result(run.folder / "deterministic")
    return TrainedRun(**vars(run), result=own and dataclasses.replace(own, twin=twin))


def export(run: str | Path | SequenceModel, imports: Collection[str] = ()) -> PlainNetwork:
    """A trained network with its noise off as a module of torch's layers, which runs without Pyro.

    Args:
        run: a run's folder, or a model.
        imports: as for :func:`load`.

    Raises:
        ValueError: as :func:`load`, or a model that torch's layers cannot express.
    """
    return plain_network(load(run, imports=imports).model if isinstance(run, str | Path) else run)
