"""How many particles does a trained model of the music table need? ``python benchmarks/music_particles.py jsb``.

The test's 2,000 particles are too few where the noise is far from its prior given the data. The same model is evaluated
with more and more of them, with the prior and with its guide as proposal: the estimates of both converge to log p(x).
The command needs the model itself (``python benchmarks/music.py jsb --rows smoothing`` trains it), and resumes.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyro
import torch
import tyro
from matplotlib.figure import Figure
from music import BATCH
from music_recipes import BUDGETS, DMM, recipes

import noisin_pyro as nz
from noisin_pyro._files import write_json
from noisin_pyro._lookup import known
from noisin_pyro._tables import markdown
from noisin_pyro.plots.style import STYLES
from noisin_pyro.training.provenance import provenance
from noisin_pyro.training.result import evaluation_as_dict, evaluation_from_dict
from noisin_pyro.training.run import program_settings

PARTICLES = (500, 2_000, 8_000)
PROPOSALS = ("prior", "guide")

Record = dict[str, Any]


def measure(run: Path, data: str, seed: int, particles: Iterable[int], record: Path) -> None:
    """Evaluate the model in the folder ``run``, and add each evaluation to the file ``record`` that lacks it."""
    with program_settings():
        trained, test = nz.load(run), nz.data.load(data).test
        empty: Record = {"row": run.parent.name, "seed": seed, "evaluations": []}
        content = json.loads(record.read_text(encoding="utf-8")) if record.exists() else empty
        done = {(each["proposal"], each["num_samples"]) for each in content["evaluations"]}
        for number, proposal in itertools.product(sorted(particles), PROPOSALS):
            if (proposal, number) in done:
                continue
            guide = trained.guide if proposal == "guide" else None
            pyro.set_rng_seed(seed)
            result = nz.evaluate(
                trained.model, test, "particle-filter", num_samples=number, batch_size=BATCH, guide=guide
            )
            own = {"proposal": proposal} | provenance(torch.device("cpu"))  # an interrupted record may have two commits
            content["evaluations"].append(own | evaluation_as_dict(result))
            write_json(record, content)
            print(f"{proposal}: {result}", file=sys.stderr)


def write(folder: Path, methods: dict[str, str]) -> str:
    """Write ``particles.md`` and ``particles.png`` of all records in ``folder``, and return the table."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((folder / "particles").glob("*.json"))]
    lines = {
        f"{methods[record['row']]}; {proposal} as proposal": sorted(
            (each for each in record["evaluations"] if each["proposal"] == proposal),
            key=lambda each: each["num_samples"],
        )
        for record in records
        for proposal in PROPOSALS
    }
    heads = ["", "particles", "nats per step ± Monte Carlo error", "estimated bias", "effective"]
    rows = [
        [
            name,
            f"{each['num_samples']:,}",
            f"{each['nats_per_step']:.3f} ± {each['monte_carlo_error']:.3f}",
            f"{evaluation_from_dict(each).monte_carlo_bias:.3f}",
            f"{each['effective_samples'] / each['num_samples']:.0%}",
        ]
        for name, evaluations in lines.items()
        for each in evaluations
    ]
    text = markdown(heads, rows)
    (folder / "particles.md").write_text(text, encoding="utf-8")
    _picture(lines).savefig(folder / "particles.png")
    return text


def _picture(lines: dict[str, list[Record]]) -> Figure:
    figure = Figure(figsize=(7, 3.6), dpi=150, layout="constrained")
    axis = figure.add_subplot()
    for (name, own), (color, marker) in zip(lines.items(), itertools.cycle(STYLES)):
        axis.plot(
            [each["num_samples"] for each in own],
            [each["nats_per_step"] for each in own],
            color=color, marker=marker, label=name,
        )  # fmt: skip
    numbers = sorted({each["num_samples"] for own in lines.values() for each in own})
    axis.set_xscale("log")
    axis.set_xticks(numbers, [f"{number:,}" for number in numbers])
    axis.minorticks_off()
    axis.set_xlabel("particles, in four islands")
    axis.set_ylabel("test, nats per step")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8)
    return figure


def main(
    data: tyro.conf.Positional[str] = "jsb",
    row: str = "smoothing",
    seed: int = 11,
    particles: tuple[int, ...] = PARTICLES,
    folder: Path = Path("results/music"),
    table: bool = False,
) -> None:
    """Evaluate a trained row with each number of particles, and write the table.

    Args:
        data: jsb, nottingham, piano-midi or musedata.
        row: Name of a row with a guide.
        seed: Seed of its run, and of each evaluation.
        particles: Numbers of particles, in four islands.
        folder: Folder of ``benchmarks/music.py``, which has the run.
        table: Write the table of the records, and run nothing.
    """
    torch.set_num_threads(1)
    contestants = recipes(known("data", data, BUDGETS))
    guided = [name for name, recipe in contestants.items() if recipe.config.inference.guide != "prior" and name != DMM]
    known("row", row, guided)
    if not table:
        (folder / data / "particles").mkdir(parents=True, exist_ok=True)
        record = folder / data / "particles" / f"{row}-{seed}.json"
        measure(folder / data / row / f"seed-{seed}", data, seed, particles, record)
    print(write(folder / data, {name: recipe.method for name, recipe in contestants.items()}))


if __name__ == "__main__":
    tyro.cli(main)
