"""γ that each of four objectives learns, by the length of the sequences: ``python benchmarks/spread_by_length.py``.

It writes ``results/spreads/lengths.json``, entry by entry, so that it can be interrupted, and ``lengths.png``. In this
linear-Gaussian model the maximum likelihood estimate of γ is known. γ is learned without a floor, from 0.3, and all
other parameters are fixed at the truth.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pyro
import torch
import tyro
from linear_gaussian import TRUTH, UNITS, linear_gaussian, max_likelihood_spread, sample_sequences
from matplotlib.figure import Figure
from spreads import RATE, RESULTS, START, equation_1, importance, learn, smoothing

import noisin_pyro as nz
from noisin_pyro._files import write_json
from noisin_pyro.inference import Bound
from noisin_pyro.plots.style import STYLES
from noisin_pyro.training.provenance import provenance
from noisin_pyro.training.run import program_settings

LENGTHS = (1, 3, 10, 30, 100)
SEQUENCES, GRADIENT_STEPS = 64, 500


def filtering(model: nz.SequenceModel) -> Bound:
    return nz.PriorAsGuide_ELBO(64, bound="filtering")(model)


OBJECTIVES: dict[str, Callable[[nz.SequenceModel], Bound]] = {
    "equation (1)": equation_1,
    "importance bound, S = 64": importance(64),
    "smoothing guide": smoothing,
    "filtering bound, K = 64": filtering,
}


def draw(content: dict[str, Any]) -> Figure:
    """γ by length, a curve for each objective; the truth is dashed, and dots are maximum likelihood estimates."""
    figure = Figure(figsize=(7, 4), dpi=150, layout="constrained")
    axis = figure.add_subplot()
    for (name, by_length), (color, marker) in zip(content["runs"].items(), STYLES, strict=False):
        lengths = sorted(map(int, by_length))
        axis.plot(lengths, [by_length[str(each)]["gamma"] for each in lengths], marker + "-", color=color, label=name)
    axis.axhline(TRUTH, color="black", linestyle="--", linewidth=1, label="truth")
    likeliest = {int(each): run["likeliest"] for runs in content["runs"].values() for each, run in runs.items()}
    axis.plot(list(likeliest), list(likeliest.values()), ".", color="black", label="maximum likelihood")
    axis.set_xscale("log")
    axis.set(xlabel="T, steps of a sequence", ylabel="learned γ (standard deviation)", ylim=(0, None))
    axis.set_title("Linear-Gaussian model, γ alone learned, without a floor")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def main(seed: int = 0, lengths: tuple[int, ...] = LENGTHS) -> None:
    """Learn γ by each objective at each length.

    Args:
        seed: Random seed of data and noise.
        lengths: Numbers of steps of a sequence.
    """
    torch.set_num_threads(1)
    path = RESULTS / "lengths.json"
    settings = {"sequences": SEQUENCES, "gradient_steps": GRADIENT_STEPS, "start": START, "rate": RATE, "units": UNITS}
    content = json.loads(path.read_text()) if path.exists() else {"seed": seed, "settings": settings, "runs": {}}
    for steps in lengths:
        for name, objective in OBJECTIVES.items():
            of_objective = content["runs"].setdefault(name, {})
            if str(steps) in of_objective:
                continue
            start = time.process_time()
            with program_settings():
                pyro.set_rng_seed(seed)
                inputs, x = sample_sequences(linear_gaussian(TRUTH), SEQUENCES, steps)
                rows = learn(objective, inputs, x, seed, GRADIENT_STEPS, floor=0.0)
            of_objective[str(steps)] = {
                "gamma": rows[-1]["gamma_1"],
                "likeliest": max_likelihood_spread(x),
                "seconds": round(time.process_time() - start, 1),
            }
            write_json(path, content | provenance(torch.device("cpu")))
            print(f"T = {steps:>3}, {name}: {of_objective[str(steps)]}", flush=True)
    draw(content).savefig(RESULTS / "lengths.png")


if __name__ == "__main__":
    tyro.cli(main)
