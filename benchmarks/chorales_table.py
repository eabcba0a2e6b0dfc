"""The table of the chorales, made from the contestants' folders: ``table.csv``, ``table.md`` and ``table.png``."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from noisin_pyro.plots.style import STYLES
from noisin_pyro.training.rundir.layout import CONFIG, RESULT

COLUMNS = {
    "mean": "noise off",
    "ensemble": "ensemble",
    "elbo": "ELBO",
    "importance": "importance",
    "particle-filter": "particle filter",
}
EVALUATION_KEYS = (
    "kind", "nats_per_step", "monte_carlo_error", "standard_error", "num_samples", "num_steps", "unreliable",
)  # fmt: skip
LEGEND = """\
Test nats per time step (a chord); lower is better. The standard error over sequences follows ±; the Monte Carlo error
is in brackets, in units of the last digit. The best value of each column is bold. *noise off* and *ensemble* are
normalised predictors (for a deterministic network, the exact log-likelihood). *ELBO* and *importance* are upper bounds
of the negative log-likelihood, with samples from the guide if there is one and from the prior otherwise; how far above
it they lie is unknown. *particle filter* is an unbiased estimate of the likelihood, so that its nats are biased
upwards, the less the smaller its error. Compare contestants within a column; columns of different kinds have different
meanings.
"""


def write_table(root: Path, names: Sequence[str]) -> list[str]:
    """Write the files from the contestants that are complete, and return their names."""
    results = {name: result for name in names if "evaluations" in (result := _read(root / name))}
    rows = list(_rows(results))
    with (root / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (root / "table.md").write_text("\n".join(_markdown(results)), encoding="utf-8")
    _picture(rows).savefig(root / "table.png")
    return list(results)


def _read(where: Path) -> dict[str, Any]:
    """A contestant's result with the length of its KL annealing in epochs."""
    if not (where / RESULT).exists():
        return {}
    settings = json.loads((where / CONFIG).read_text())
    annealing = settings.get("settings", {}).get("annealing_epochs") or settings.get("inference", {}).get(
        "kl_annealing"
    )
    return json.loads((where / RESULT).read_text()) | {"annealing": annealing or 0}


def _rows(results: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per evaluation."""
    for name, result in results.items():
        for method, number in result["evaluations"].items():
            run = {"contestant": name, "gamma": _gamma(result), "minutes": round(result["minutes"], 2)}
            run |= {"seed": result["seed"], "epochs": result["epochs"], "best_epoch": result["best_epoch"]}
            yield run | {"method": method} | {key: number.get(key) for key in EVALUATION_KEYS}


def _markdown(results: dict[str, Any]) -> Iterator[str]:
    best = {
        method: min(numbers, default=None)
        for method in COLUMNS
        for numbers in [[_nats(result, method) for result in results.values() if method in result["evaluations"]]]
    }
    yield "# The chorales\n"
    yield LEGEND
    kinds = {
        method: sorted({r["evaluations"][method]["kind"] for r in results.values() if method in r["evaluations"]})
        for method in COLUMNS
    }
    heads = [f"{title} ({' or '.join(kinds[method])})" for method, title in COLUMNS.items()]
    yield _line(["", "γ", "minutes", "best epoch", *heads])
    yield _line(["---"] * (4 + len(heads)))
    for name, result in results.items():
        run = [name, _gamma(result) or "-", f"{result['minutes']:.1f}", f"{result['best_epoch']} of {result['epochs']}"]
        cells = [_cell(result["evaluations"].get(method), best[method]) for method in COLUMNS]
        yield _line(run + cells)
    yield ""
    for method, title in COLUMNS.items():
        ranked = sorted((_nats(r, method), name) for name, r in results.items() if method in r["evaluations"])
        if ranked:
            yield f"- {title}, best first: " + ", ".join(f"{name} {nats:.3f}" for nats, name in ranked)
    unreliable = {name: r["evaluations"].get("importance", {}).get("unreliable") for name, r in results.items()}
    shares = ", ".join(f"{name} {value:.0%}" for name, value in unreliable.items() if value is not None)
    yield f"- sequences whose importance weights have a Pareto k̂ above 0.7: {shares}"
    for name, result in results.items():
        if (annealing := result.get("annealing", 0)) > result["best_epoch"]:
            yield (
                f"- {name}: its KL annealing takes {annealing} epochs, but its best model is from epoch "
                f"{result['best_epoch']}; it needs more minutes"
            )
    yield "\nCommands, with seeds:\n"
    yield from (f"    {result['command']}" for result in results.values())
    yield ""


def _picture(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """One line per contestant, one marker per evaluation with its standard error over sequences.

    Bounds have hollow markers: the negative log-likelihood lies to their left.
    """
    names = list(dict.fromkeys(row["contestant"] for row in rows))
    figure = Figure(figsize=(7.5, 0.55 * len(names) + 1.4), dpi=150, layout="constrained")
    axis = figure.add_subplot()
    for index, (method, label) in enumerate(COLUMNS.items()):
        colour, marker = STYLES[index]
        shift = 0.7 * ((index + 0.5) / len(COLUMNS) - 0.5)
        for row in (row for row in rows if row["method"] == method):
            axis.errorbar(
                row["nats_per_step"], names.index(row["contestant"]) + shift, xerr=row["standard_error"], label=label,
                color=colour, marker=marker, markersize=5, linewidth=1, linestyle="none",
                markerfacecolor="white" if row["kind"] == "bound" else colour,
            )  # fmt: skip
            label = None
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel("test, nats per step (± error over sequences; hollow: an upper bound)")
    axis.grid(alpha=0.3, axis="x")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _cell(number: dict[str, Any] | None, best: float | None) -> str:
    if number is None:
        return "-"
    value = f"{number['nats_per_step']:.3f}"
    error = f"({1000 * number['monte_carlo_error']:.0f})" if number["monte_carlo_error"] else ""
    shown = f"**{value}**" if number["nats_per_step"] == best else value
    return f"{shown}{error} ± {number['standard_error']:.3f}"


def _gamma(result: dict[str, Any]) -> str:
    return ", ".join(f"{gamma:.3g}" for gamma in result.get("spreads", {}).values())


def _nats(result: dict[str, Any], method: str) -> float:
    return result["evaluations"][method]["nats_per_step"]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
