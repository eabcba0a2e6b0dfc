"""γ along training under the three ways of learning it: equation (1), the importance bound, a smoothing guide.

``python benchmarks/spreads.py linear-gaussian`` and ``python benchmarks/spreads.py chorales`` write
``results/spreads/*.json``, and ``python benchmarks/spreads.py figure`` draws ``results/spreads/spreads.png`` of both.

In the linear-Gaussian model the likeliest γ is known: all else is at the truth, and the noise is all that z has. On the
chorales everything is learned, by the rules of the contest (``chorales.py``), and nobody knows the likeliest γ.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pyro
import torch
import tyro
from chorales import config, finish
from linear_gaussian import STEPS, TRUTH, UNITS, likeliest, linear_gaussian, sequences
from matplotlib.figure import Figure
from torch import Tensor

import noisin_pyro as nz
from noisin_pyro import plots
from noisin_pyro.inference import Bound
from noisin_pyro.training import Inference, Noise
from noisin_pyro.training.folder import provenance, write_json
from noisin_pyro.training.log import Row
from noisin_pyro.training.run import program_settings

ROOT = Path(__file__).parents[1]
RESULTS, RUNS = ROOT / "results" / "spreads", ROOT / "runs" / "spreads"
START, FLOOR = 0.3, 0.1  # of γ; the floor is the paper's
SEQUENCES = 400
TITLES = {"linear-gaussian": "Linear-Gaussian model, γ alone learned", "chorales": "Chorales, everything learned"}
COLUMNS = ("epoch", "train_nats", "valid_nats", "gamma_1")
EPOCHS, RATE, SHOWN = 1500, 0.02, 10  # of the linear-Gaussian model: a gradient step an epoch, all sequences in each


def equation_1(model: nz.SequenceModel) -> Bound:
    return nz.PriorAsGuide_ELBO(1)(model)


def importance(samples: int) -> Callable[[nz.SequenceModel], Bound]:
    return lambda model: nz.PriorAsGuide_ELBO(samples, bound="importance")(model)


def smoothing(model: nz.SequenceModel) -> Bound:
    guide = nz.guides.get("smoothing", model, covariance="full", hidden_size=32)
    return nz.PriorAsGuide_ELBO(1)(model, guide)


WAYS: dict[str, Callable[[nz.SequenceModel], Bound]] = {
    "equation (1)": equation_1,
    "importance, S = 5": importance(5),
    "importance, S = 50": importance(50),
    "smoothing guide": smoothing,
}


def learn(way: Callable[[nz.SequenceModel], Bound], inputs: Tensor, x: Tensor, seed: int) -> list[Row]:
    """γ, and the guide's parameters where there are any, by Adam; γ every tenth step."""
    pyro.set_rng_seed(seed)
    model = linear_gaussian(nz.Spread(START, floor=FLOOR, learn=True))
    bound = way(model)
    optimizer = torch.optim.Adam([p for p in bound.parameters() if p.requires_grad], lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    rows: list[Row] = []
    for epoch in range(EPOCHS):
        loss = bound(inputs, x) / x[..., 0].numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (epoch + 1) % SHOWN == 0:
            rows.append({"epoch": epoch + 1, "train_nats": loss.item()} | model.rnn.spreads())
    return rows


def on_the_linear_gaussian(only: str | None, seed: int) -> None:
    pyro.set_rng_seed(seed)
    inputs, x = sequences(linear_gaussian(TRUTH), SEQUENCES)
    setting = {"sequences": SEQUENCES, "steps": STEPS, "units": UNITS, "truth": TRUTH, "seed": seed, "rate": RATE}
    setting |= {"likeliest": likeliest(x), "floor": FLOOR}
    for name, way in WAYS.items():
        if only in (None, name):
            keep("linear-gaussian", setting, name, learn(way, inputs, x, seed))


def on_the_chorales(only: str | None, epochs: int, seed: int) -> None:
    setting = {"epochs": epochs, "seed": seed, "floor": FLOOR}
    for name, run in runs_on_the_chorales(epochs, seed).items():
        if only in (None, name):
            result = finish(run)
            keep("chorales", setting, name, result.log)


def runs_on_the_chorales(epochs: int, seed: int) -> dict[str, nz.Config]:
    """The runs on the chorales: one tanh layer of 100 units, everything learned."""

    def run(name: str, guide: Inference | None = None, **how: Any) -> nz.Config:
        noise = Noise(spread=START, learn_spread=True, spread_floor=FLOOR)
        return config(RUNS / f"{name}-{seed}", seed, noise, guide, epochs=epochs, patience=None, **how)

    return {
        "equation (1)": run("equation-1"),
        "importance, S = 5": run("importance-5", particles=5, bound="importance"),
        "importance, S = 50": run("importance-50", particles=50, bound="importance"),
        "smoothing guide": run("smoothing", Inference(guide="smoothing", kl_annealing=20)),
    }


def keep(part: str, setting: dict[str, Any], name: str, rows: list[Row]) -> None:
    """Put a run's columns, six digits a number, beside those that are there, in the order of the figure."""
    path = RESULTS / f"{part}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = json.loads(path.read_text())["runs"] if path.exists() else {}
    runs[name] = {column: [float(f"{row[column]:.6g}") for row in rows] for column in COLUMNS if column in rows[0]}
    ordered = {way: runs[way] for way in WAYS if way in runs}
    write_json(path, setting | provenance(torch.device("cpu")) | {"runs": ordered})


def draw() -> None:
    """Both parts side by side, as far as they have been run."""
    figure = Figure(figsize=(11, 4), dpi=150, layout="constrained")
    for axis, (part, title) in zip(figure.subplots(1, 2), TITLES.items(), strict=True):
        path = RESULTS / f"{part}.json"
        if not path.exists():
            axis.set_axis_off()
            continue
        told = json.loads(path.read_text())
        runs = {
            name: [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
            for name, columns in told["runs"].items()
        }
        plots.learned_spreads(runs, axis, title, told.get("likeliest"), told["floor"])
    figure.savefig(RESULTS / "spreads.png")


def main(
    part: tyro.conf.Positional[Literal["linear-gaussian", "chorales", "figure"]],
    only: str | None = None,
    epochs: int = 200,
    seed: int = 0,
) -> None:
    """γ along training under the three ways of learning it.

    Args:
        part: what to run, or to draw.
        only: one way of them, by its name in the figure; the others' numbers stay as they are.
        epochs: passes over the chorales.
        seed: of data, weights and noise.
    """
    torch.set_num_threads(1)
    if part == "linear-gaussian":
        with program_settings():
            on_the_linear_gaussian(only, seed)
    elif part == "chorales":
        on_the_chorales(only, epochs, seed)
    draw()


if __name__ == "__main__":
    tyro.cli(main)
