"""Searches killed at random moments until they are done; a program for ``test_search.py``, in a process of its own.

    python searched.py TEXTS FOLDER

makes one search three times: in FOLDER/whole; in FOLDER/broken, where its worker is killed with SIGKILL and restarted
several times; and in FOLDER/shared with two workers, one of which is killed now and then. Children are forks, so that
the libraries are loaded only once.
"""

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

import noisin_pyro.search.trial_runner  # noqa: F401 - loads Optuna before the forks
from noisin_pyro.search import Range, search
from noisin_pyro.training import Config, Data, Model, Optimization, Run

SPACE = {
    "noise.noise": ("gaussian", "beta:native"),
    "noise.spread": Range(0.1, 1.4),
    "optimization.learning_rate": (0.01, 0.03),
}


def configuration(texts: Path) -> Config:
    """The configuration of very short runs."""
    files = (texts / "train.txt", texts / "valid.txt", texts / "test.txt")
    return Config(
        data=Data(files=files, batch_size=4, window=10),
        model=Model(hidden_size=4, cell="sigmoid"),
        optimization=Optimization(epochs=4),
        run=Run(ensemble_samples=2, checkpoint_steps=3),
    )


def start(texts: Path, folder: Path) -> int:
    """Start a worker in a fork; returns its process id."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        code = 1
        with folder.with_suffix(".err").open("a", buffering=1) as err, contextlib.redirect_stderr(err):
            search(configuration(texts), SPACE, folder, trials=6, trial_epochs=3, seed=2)
            code = 0
        os._exit(code)
    return child


def end(texts: Path, folder: Path, kills: int, workers: int) -> None:
    """Finish one search."""
    moments, children = random.Random(), [start(texts, folder) for _ in range(workers)]
    for _ in range(kills):
        time.sleep(moments.uniform(0.0, 0.5))
        victim = moments.choice(children)
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)
        children[children.index(victim)] = start(texts, folder)
    for child in children:
        _, status = os.waitpid(child, 0)
        if status:
            raise SystemExit(f"a worker ended with status {status}")


if __name__ == "__main__":
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # loads what every child needs
    texts, root = Path(sys.argv[1]), Path(sys.argv[2])
    end(texts, root / "whole", kills=0, workers=1)
    end(texts, root / "broken", kills=8, workers=1)
    end(texts, root / "shared", kills=3, workers=2)
