"""Very short runs, and comparisons of them."""

import json
from pathlib import Path
from typing import Any

import torch

from noisin_pyro.training import Config, Data, Model, Optimization, Run
from noisin_pyro.training.rundir import checkpointer, metrics_log

Texts = tuple[Path, Path, Path]
FAMILIES = ("gaussian", "gaussian:multiplicative")


def small_config(texts: Texts, **optimization: Any) -> Config:
    return Config(
        data=Data(files=texts, batch_size=4, window=10),
        model=Model(hidden_size=4),
        optimization=Optimization(**{"learning_rate": 0.02, "epochs": 4} | optimization),
        run=Run(ensemble_samples=2),
    )


def read_trials(folder: Path) -> list[dict[str, Any]]:
    """The trials in ``search.json``, without their seconds."""
    trials = json.loads((folder / "search.json").read_text())["of_each_trial"]
    assert all(trial.pop("seconds") >= 0 for trial in trials)
    return trials


def _bits(folder: Path) -> tuple[list[metrics_log.Row], dict[str, Any], dict[str, torch.Tensor]]:
    """All numbers of a finished run, times apart, and its parameters."""
    rows = metrics_log.read(folder / "log.csv")
    for row in rows:
        del row["seconds"], row["tokens_per_second"]
    content = json.loads((folder / "result.json").read_text())
    return (
        rows,
        {key: content[key] for key in ("valid", "test", "test_ensemble", "best_epoch")},
        (checkpointer.load(folder / "best.pt")["model"]),
    )


def assert_same_run(actual: Path, expected: Path) -> None:
    (*numbers, weights), (*others, more) = _bits(actual), _bits(expected)
    assert numbers == others
    torch.testing.assert_close(weights, more, rtol=0, atol=0)
