"""Very short runs, for commands to read."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.io import savemat

from noisin_pyro.training import Config, Data, Inference, Model, Noise, Optimization, Run, train


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a noisy run, of one epoch, on small texts beside it."""
    folder = tmp_path_factory.mktemp("run")
    files = []
    for part, lines in (("train", 30), ("valid", 60), ("test", 70)):
        file = folder / f"{part}.txt"
        file.write_text("one two three four\nfive six <unk>\n" * lines)
        files.append(file)
    train(
        Config(
            data=Data(files=(files[0], files[1], files[2]), batch_size=4, window=10),
            model=Model(hidden_size=8),
            noise=Noise(spread=0.4),
            optimization=Optimization(epochs=1),
            run=Run(folder=folder / "run", ensemble_samples=2),
        )
    )
    return folder / "run"


@pytest.fixture(scope="session")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a deterministic run on three short chorales."""
    where = chorales(tmp_path_factory.mktemp("music"))
    train(
        Config(
            data=Data(name=str(where), batch_size=2),
            model=Model(hidden_size=8),
            noise=Noise(spread=0.0),
            optimization=Optimization(epochs=1),
            run=Run(folder=where.parent / "run"),
        )
    )
    return where.parent / "run"


@pytest.fixture(scope="session")
def guided(tmp_path_factory: pytest.TempPathFactory, music: Path) -> Path:
    """The folder of a run on the same, with a smoothing guide."""
    folder = tmp_path_factory.mktemp("guided") / "run"
    train(
        Config(
            data=Data(name=str(music.parent / "Chorales.mat"), batch_size=2),
            model=Model(hidden_size=8),
            inference=Inference(guide="smoothing"),
            optimization=Optimization(epochs=1),
            run=Run(folder=folder, twin=False, ensemble_samples=0),
        )
    )
    return folder


@pytest.fixture(scope="session")
def counts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on a table, with a filtering guide."""
    folder = tmp_path_factory.mktemp("counts")
    train(
        Config(
            data=Data(name=str(table(folder)), covariates=("weekday",)),
            model=Model(hidden_size=4, emission="negative-binomial"),
            inference=Inference(guide="filtering"),
            optimization=Optimization(epochs=1),
            run=Run(folder=folder / "run", twin=False, ensemble_samples=0),
        )
    )
    return folder / "run"


def table(folder: Path, steps: int = 40) -> Path:
    """Counts of two shops with gaps, and a covariate."""
    generator = np.random.default_rng(0)
    days = pd.date_range("2026-01-01", periods=steps, freq="D")
    rows = [(shop, day, generator.poisson(4 + i % 7), i % 7 / 7) for shop in "ab" for i, day in enumerate(days)]
    frame = pd.DataFrame(rows, columns=["shop", "day", "sold", "weekday"])
    frame["sold"] = frame["sold"].astype(float)
    frame.loc[[3, 4, 50], "sold"] = np.nan
    frame.drop(index=[10, 60]).to_csv(folder / "sold.csv", index=False)
    later = pd.date_range(days[-1], periods=6, freq="D")[1:]
    future = pd.DataFrame([(shop, day, 0.5) for shop in "ba" for day in later], columns=["shop", "day", "weekday"])
    future.to_csv(folder / "future.csv", index=False)
    return folder / "sold.csv"


def chorales(folder: Path) -> Path:
    """Three short ones in each part, in a file there."""
    generator = torch.Generator().manual_seed(0)
    pieces = {}
    for part in ("traindata", "validdata", "testdata"):
        cells = np.empty((1, 3), dtype=object)
        for index, length in enumerate((4, 6, 3)):
            cells[0, index] = torch.randint(2, (length, 88), generator=generator).double().numpy()
        pieces[part] = cells
    savemat(folder / "Chorales.mat", pieces)
    return folder / "Chorales.mat"


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three texts of a hundred words or less."""
    folder = tmp_path_factory.mktemp("texts")
    for part, lines in (("train", 12), ("valid", 4), ("test", 5)):
        (folder / f"{part}.txt").write_text("one two three four\nfive six <unk>\n" * lines)
    return folder
