"""Cost of the filtering bound: ``python benchmarks/filtering_step.py`` writes ``results/filtering_step.json``.

One gradient step (forward and backward) of the bound with K particles that are resampled at every step, beside one of
the ELBO of the prior with K samples by the loop. The contestants take turns in one process on one thread; a ratio is
the median over rounds with a 95 % bootstrap interval. The memory of each step is measured in a process of its own.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro
from timing.interleaved import paired_ratio, quartiles, time_in_turns
from timing.memory import peak

from noisin_pyro import LanguageModel, NoisyRNN, PriorAsGuide_ELBO, SequenceModel
from noisin_pyro._files import write_json
from noisin_pyro.training.provenance import provenance
from noisin_pyro.training.run import program_settings

RESULT = Path(__file__).parents[1] / "results" / "filtering_step.json"
SPREAD, SEED = 0.3, 0


@dataclass(frozen=True)
class Shape:
    """Sizes of a step; ``words`` of 0 is music of 88 keys."""

    cell: str
    units: int
    particles: int
    batch: int = 20
    steps: int = 60
    words: int = 0


SHAPES = [
    Shape("tanh", 100, 8),
    Shape("tanh", 256, 8),
    Shape("lstm", 256, 8),
    Shape("tanh", 256, 4, steps=35, words=10_000),
]
LIMITS = {100: 2.0, 256: 1.3}
"""The ratio that is aimed at, by number of units."""


def contestants(shape: Shape) -> dict[str, Callable[[], None]]:
    """A gradient step of each objective, on random data."""
    torch.manual_seed(SEED)
    options: dict[str, Any] = {"cell": shape.cell, "spread": SPREAD, "backend": "loop"}
    if shape.words:
        inputs, targets = torch.randint(shape.words, (2, shape.batch, shape.steps))
        model: SequenceModel = LanguageModel(shape.words, shape.units, **options)
    else:
        inputs, targets = torch.bernoulli(torch.full((2, shape.batch, shape.steps, 88), 0.05))
        model = SequenceModel(NoisyRNN(88, shape.units, **options), "bernoulli", 88)
    objectives = {
        "filtering": PriorAsGuide_ELBO(shape.particles, bound="filtering", threshold=1.0),
        "elbo": PriorAsGuide_ELBO(shape.particles, max_plate_nesting=1),
    }

    def step(bound: Any) -> None:
        model.zero_grad()
        bound(inputs, targets).backward()

    return {name: partial(step, objective(model)) for name, objective in objectives.items()}


def measure(shape: Shape, rounds: int) -> dict[str, Any]:
    """Times, their ratio and the memory of both steps at one shape."""
    with program_settings():
        seconds = time_in_turns(contestants(shape), rounds, rounds, max_seconds=0.0).seconds
    memory = {name: peak_bytes(shape, name) for name in seconds}
    ratio = paired_ratio(seconds["filtering"], seconds["elbo"], SEED)
    return {
        "shape": asdict(shape),
        "milliseconds": {name: 1000 * quartiles(values).median for name, values in seconds.items()},
        "ratio": ratio._asdict(),
        "limit": LIMITS[shape.units],
        "met": ratio.median <= LIMITS[shape.units],
        "peak_bytes": memory,
        "memory_ratio": memory["filtering"] / memory["elbo"],
    }


def peak_bytes(shape: Shape, name: str) -> int:
    """Peak memory of a step above that of the process before it, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_peak_bytes, shape, name).result()


def _peak_bytes(shape: Shape, name: str) -> int:
    torch.set_num_threads(1)
    with program_settings():
        tiny = Shape(shape.cell, 4, 2, batch=2, steps=2, words=min(shape.words, 8))
        contestants(tiny)[name]()  # the first step imports modules
        before = peak(torch.device("cpu"))
        contestants(shape)[name]()
    return peak(torch.device("cpu")) - before


def main(rounds: int = 40, result: Path = RESULT) -> None:
    """Time a gradient step of the filtering bound beside one of the ELBO.

    Args:
        rounds: Number of rounds at each shape.
        result: File to write.
    """
    torch.set_num_threads(1)
    content = {
        "seed": SEED,
        **provenance(torch.device("cpu")),
        "settings": {"spread": SPREAD, "threshold": 1.0, "repeats": rounds},
        "shapes": [measure(shape, rounds) for shape in SHAPES],
    }
    write_json(result, content)
    print(json.dumps(content["shapes"], indent=2))


if __name__ == "__main__":
    tyro.cli(main)
