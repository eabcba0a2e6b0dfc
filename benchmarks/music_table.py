"""The table of a set of polyphonic music, made from its records: ``table.csv``, ``table.md`` and ``table.png``."""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure
from music_recipes import start_of

from noisin_pyro._tables import markdown
from noisin_pyro.plots.style import STYLES
from noisin_pyro.training.result import evaluation_from_dict

Record = dict[str, Any]
Rows = Mapping[str, list[Record]]
"""The records of each row, one for each seed."""

COLUMNS = {
    "mean": "noise off",
    "ensemble": "ensemble",
    "elbo": "ELBO",
    "importance": "importance",
    "particle-filter": "particle filter",
    "guided-particle-filter": "particle filter, guide as proposal",
}
EVALUATION_KEYS = (
    "kind", "nats_per_step", "monte_carlo_error", "standard_error", "num_samples", "num_steps", "unreliable",
    "effective_samples",
)  # fmt: skip
SHOWN_BIAS = 0.02
"""Estimated bias of the particle filter, in nats per step, from which the table names it."""
LEGEND = """\
Test nats per time step (a chord); lower is better. The standard error over sequences follows ±; the Monte Carlo error
is in brackets, in units of the last digit. With several seeds, numbers are means, and their range is in square
brackets. The best value of each column is bold. *noise off* and *ensemble* are normalized predictors (for a
deterministic network, the exact log-likelihood). *ELBO* and *importance* are upper bounds of the negative
log-likelihood, with samples from the guide if there is one and from the prior otherwise; how far above it they lie is
unknown. *particle filter* is an unbiased estimate of the likelihood, so that its nats are biased upwards, the less the
smaller its error. Compare contestants within a column; columns of different kinds have different meanings. Parameters
are those of the model, then those of the guide. Hours are those of the trials and of the runs of all seeds, on one
thread; for a row that starts from another, those of that row are included, and its own are in brackets."""


def write_table(folder: Path, order: Iterable[str]) -> str:
    """Write the files from the records in ``folder``, and return the table; empty without records."""
    rows = {row: records for row in order if (records := read_records(folder / row))}
    if not rows:
        return ""
    evaluations = list(_evaluations(rows))
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(evaluations[0]))
        writer.writeheader()
        writer.writerows(evaluations)
    text = table(folder.name, rows)
    (folder / "table.md").write_text(text, encoding="utf-8")
    _picture(rows).savefig(folder / "table.png")
    return text


def read_records(where: Path) -> list[Record]:
    """The records of a row, by seed."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in where.glob("seed-*.json")]
    return sorted(records, key=lambda record: record["seed"])


def table(data: str, rows: Rows) -> str:
    """The table in Markdown, with its legend."""
    best = {method: min(_means(rows, method).values(), default=math.nan) for method in COLUMNS}
    kinds = {
        method: " or ".join(sorted({e["kind"] for records in rows.values() for e in _of(records, method)}))
        for method in COLUMNS
    }
    heads = ["", "parameters", "γ", "chosen", "hours", "best epoch"]
    heads += [f"{title} ({kinds[method]})" for method, title in COLUMNS.items() if kinds[method]]
    lines = [
        [
            records[0]["method"],
            " + ".join(f"{number:,}" for number in records[0]["parameters"].values()),
            _listed({f"{gamma:.3g}": 0 for record in records for gamma in record["spreads"].values()}),
            _listed({f"{name.partition('.')[2].replace('_', ' ')} {v}": 0 for name, v in records[0]["chosen"].items()}),
            _hours(records, rows),
            _listed([f"{record['best_epoch']} of {record['epochs']}" for record in records]),
            *(_cell(_of(records, method), best[method]) for method in COLUMNS if kinds[method]),
        ]
        for records in rows.values()
    ]
    unreliable = [
        f"{records[0]['method']} {shares[0]:.0%}"
        for records in rows.values()
        if (shares := [e["unreliable"] for e in _of(records, "importance") if e.get("unreliable") is not None])
    ]
    head = "- sequences whose importance weights have a Pareto k̂ above 0.7: "
    notes = [head + "; ".join(unreliable)] if unreliable else []
    biased = [
        f"{records[0]['method']}{', guide as proposal' * (method != 'particle-filter')} {max(biases):.2f}"
        for method in ("particle-filter", "guided-particle-filter")
        for records in rows.values()
        if (biases := [evaluation_from_dict(e).monte_carlo_bias for e in _of(records, method)])
        and max(biases) >= SHOWN_BIAS
    ]
    if biased:
        notes.append(f"- estimated bias of the particle filter, if at least {SHOWN_BIAS}: {'; '.join(biased)}")
    if scales := {record["scale"] for record in itertools.chain(*rows.values())} - {1.0}:
        notes.append(f"- numbers of samples are scaled by {_listed(sorted(map(str, scales)))}")
    return "\n".join([f"## {data}", "", LEGEND, "", markdown(heads, lines), *notes, ""])


def _of(records: list[Record], method: str) -> list[dict[str, Any]]:
    """The evaluations of a row by a method, one for each seed."""
    return [record["evaluations"][method] for record in records if method in record["evaluations"]]


def _means(rows: Rows, method: str) -> dict[str, float]:
    """Mean over seeds of a method's numbers, by row."""
    values = {row: [e["nats_per_step"] for e in _of(records, method)] for row, records in rows.items()}
    return {row: mean(each) for row, each in values.items() if each}


def _hours(records: list[Record], rows: Rows) -> str:
    """Hours of the trials, which all seeds share, and of every run; with those of the row from which it starts."""
    seeds = {record["seed"] for record in records}
    start = [record for record in rows.get(start_of(records[0]["row"]) or "", []) if record["seed"] in seeds]
    own, before = (
        (each[0]["seconds"]["trials"] + sum(record["seconds"]["training"] for record in each)) / 3600 if each else 0.0
        for each in (records, start)
    )
    return f"{own + before:.2f} ({own:.2f})" if start else f"{own:.2f}"


def _cell(evaluations: list[dict[str, Any]], best: float) -> str:
    if not evaluations:
        return "–"
    nats = [each["nats_per_step"] for each in evaluations]
    error = math.hypot(*(each["monte_carlo_error"] or 0.0 for each in evaluations)) / len(nats)
    value = f"{mean(nats):.3f}"
    shown = f"**{value}**" if mean(nats) == best else value
    spread = f" [{min(nats):.3f}, {max(nats):.3f}]" if len(nats) > 1 else ""
    monte_carlo = f"({1000 * error:.0f})" if error else ""
    return f"{shown}{monte_carlo} ± {mean(each['standard_error'] for each in evaluations):.3f}{spread}"


def _listed(values: Iterable[str]) -> str:
    return ", ".join(values) or "–"


def _evaluations(rows: Rows) -> Iterator[dict[str, Any]]:
    """One line for each evaluation, for the CSV file."""
    for record in itertools.chain(*rows.values()):
        seconds = {f"{part}_seconds": round(value, 1) for part, value in record["seconds"].items()}
        run = {key: record[key] for key in ("row", "seed", "epochs", "best_epoch")} | seconds
        run |= {"gamma": _listed(f"{gamma:.4g}" for gamma in record["spreads"].values())}
        for method, number in record["evaluations"].items():
            yield run | {"method": method} | {key: number.get(key) for key in EVALUATION_KEYS}


def _picture(rows: Rows) -> Figure:
    """One line per row, one marker per evaluation with its standard error over sequences.

    Bounds have hollow markers: the negative log-likelihood lies to their left.
    """
    figure = Figure(figsize=(8, 0.5 * len(rows) + 1.4), dpi=150, layout="constrained")
    axis = figure.add_subplot()
    for index, (method, label) in enumerate(COLUMNS.items()):
        color, marker = STYLES[index]
        shift = 0.7 * ((index + 0.5) / len(COLUMNS) - 0.5)
        for place, records in enumerate(rows.values()):
            for each in _of(records, method):
                axis.errorbar(
                    each["nats_per_step"], place + shift, xerr=each["standard_error"], label=label, color=color,
                    marker=marker, markersize=5, linewidth=1, linestyle="none",
                    markerfacecolor="white" if each["kind"] == "bound" else color,
                )  # fmt: skip
                label = None
    axis.set_yticks(range(len(rows)), [records[0]["method"] for records in rows.values()], fontsize=7)
    axis.invert_yaxis()
    axis.set_xlabel("test, nats per step (± error over sequences; hollow: an upper bound)")
    axis.grid(alpha=0.3, axis="x")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure
