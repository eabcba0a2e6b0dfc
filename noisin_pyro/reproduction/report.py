"""A table as it is read: the paper's number, ours, and whether the paper's order holds. Made from the records alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from matplotlib.figure import Figure

from noisin_pyro import plots
from noisin_pyro._files import atomic_write, exclusive_lock
from noisin_pyro._tables import markdown
from noisin_pyro.recipes import TABLES
from noisin_pyro.reproduction.records import Record, differing, options, read_records
from noisin_pyro.training.space import chosen

TITLES = {
    "table2": "Table 2 of the draft: Penn Treebank, test perplexity",
    "table3": "Table 3 of the draft: WikiText-2, test perplexity",
    "figure2": "Figure 2 of the draft: Penn Treebank, one sigmoid layer of 256 units",
    "zaremba": "The small network of Zaremba et al. (2014): Penn Treebank, test perplexity",
    "icml-m": "The published paper's medium model: Penn Treebank, perplexity",
}
HEADS = ("row", "paper", "test, noise off", "test, ensemble", "validation", "γ", "chosen", "epochs", "seeds")


class Seeds(NamedTuple):
    """A row's records, one a seed."""

    records: list[Record]

    @property
    def first(self) -> Record:
        return self.records[0]

    def of(self, number: str) -> list[float]:
        """A number of each seed, or none."""
        found = [getattr(record, number) for record in self.records]
        return [value for value in found if value is not None]


def rows(records: Iterable[Record]) -> list[Seeds]:
    """The records by row, in their table's order."""
    by_row: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.seed):
        by_row.setdefault(record.row, []).append(record)
    order = [recipe.row for records in by_row.values() for recipe in TABLES[records[0].table]()]
    return [Seeds(by_row[row]) for row in dict.fromkeys(order) if row in by_row]


def table(records: Sequence[Record]) -> str:
    """Markdown: a line for each row, means over its seeds with their range."""
    lines = []
    for row in rows(records):
        first = row.first
        lines.append(
            (
                first.row,
                _number(first.paper_test_perplexity),
                _range(row.of("test_perplexity")),
                _range(row.of("ensemble_test_perplexity")),
                _range(row.of("validation_perplexity")),
                ", ".join(_range([record.spreads[layer] for record in row.records], 2) for layer in first.spreads)
                or "–",
                ", ".join(f"{name.partition('.')[2].replace('_', ' ')} {value}" for name, value in first.chosen.items())
                or "–",
                ", ".join(f"{record.best_epoch} of {record.epochs}" for record in row.records),
                str(len(row.records)),
            )
        )
    return markdown(HEADS, lines)


class Claim(NamedTuple):
    """One method better than another in the paper, and what is measured here.

    Attributes:
        group: the rows' group.
        better, worse: the first record of each row, in the paper's order.
        verdict: ``"better"`` or ``"worse"``, of the method that is better in the paper, where all seeds of one row lie
            beyond all seeds of the other by more than the Monte Carlo error; ``"ahead"`` or ``"behind"`` where that is
            so of one seed; else ``"tie"``; ``None`` where neither row has the number.
        difference: of the means, positive where the paper's order is ours.
        seeds: of the row that has fewer.
    """

    group: str
    better: Record
    worse: Record
    verdict: str | None
    difference: float
    seeds: int

    @property
    def in_the_paper(self) -> float:
        """The difference there."""
        assert self.better.paper_test_perplexity is not None and self.worse.paper_test_perplexity is not None
        return self.worse.paper_test_perplexity - self.better.paper_test_perplexity


def claims(records: Sequence[Record], number: str = "test_perplexity") -> list[Claim]:
    """Every pair of rows of one group, by the paper's order, and whether that is ours.

    Args:
        records: of one table.
        number: ``"test_perplexity"`` (noise off) or ``"ensemble_test_perplexity"``; a row that has no ensemble, since
            nothing in it is random, stands by its one number.
    """
    found = []
    with_number = [row for row in rows(records) if row.first.paper_test_perplexity is not None]
    for one, other in itertools.combinations(with_number, 2):
        if one.first.group != other.first.group or one.first.paper_test_perplexity == other.first.paper_test_perplexity:
            continue
        better, worse = sorted((one, other), key=lambda row: row.first.paper_test_perplexity or 0.0)
        if not (better.of(number) or worse.of(number)):
            found.append(Claim(one.first.group, better.first, worse.first, None, math.nan, 0))
            continue
        ours, theirs = _numbers(better, number), _numbers(worse, number)
        difference = mean(value for value, _ in theirs) - mean(value for value, _ in ours)
        seeds = min(len(ours), len(theirs))
        found.append(Claim(one.first.group, better.first, worse.first, _verdict(ours, theirs), difference, seeds))
    return found


def _numbers(row: Seeds, number: str) -> list[tuple[float, float]]:
    """The number of each seed with its Monte Carlo error, which is 0 with the noise off."""
    if not row.of(number):
        number = "test_perplexity"
    noisy = number == "ensemble_test_perplexity"
    return [
        (getattr(record, number), (record.ensemble_monte_carlo_error or 0.0) if noisy else 0.0)
        for record in row.records
    ]


def _verdict(ours: Sequence[tuple[float, float]], theirs: Sequence[tuple[float, float]]) -> str:
    one_seed = min(len(ours), len(theirs)) == 1
    if _all_beyond(ours, theirs):
        return "ahead" if one_seed else "better"
    if _all_beyond(theirs, ours):
        return "behind" if one_seed else "worse"
    return "tie"


def _all_beyond(lower: Sequence[tuple[float, float]], higher: Sequence[tuple[float, float]]) -> bool:
    """Whether every number of one row is lower than every number of the other, by more than their joint error."""
    return all(
        high - low > math.hypot(low_error, high_error) for low, low_error in lower for high, high_error in higher
    )


def order(records: Sequence[Record]) -> str:
    """Markdown: each claim of the table's groups, a line each, noise off and as an ensemble."""
    pairs = zip(claims(records), claims(records, "ensemble_test_perplexity"), strict=True)
    heads = ("group", "the paper", "by", "here, noise off", "here, ensemble")
    lines = []
    for off, ensemble in pairs:
        claim = f"{off.better.method} better than {off.worse.method}"
        lines.append((off.group, claim, f"{off.in_the_paper:.1f}", _shown(off), _shown(ensemble)))
    return markdown(heads, lines) if lines else ""


def _shown(claim: Claim) -> str:
    return "–" if claim.verdict is None else f"{claim.verdict}: {claim.difference:+.1f}".replace("-", "−")


def write(folder: Path, name: str) -> None:
    """Write ``NAME.md`` in ``folder`` from the records there, and for figure 2 ``figure2.png``."""
    if not (folder / name).exists():
        return
    with exclusive_lock(folder / name, wait=True):  # else who has read fewer records could be the last to write
        records = read_records(folder, name)
        if not records:
            return
        with atomic_write(folder / f"{name}.md") as file:
            file.write(text(records).encode())
        if name == "figure2":
            with atomic_write(folder / f"{name}.png") as file:
                figure(records).savefig(file, format="png")


def text(records: Sequence[Record]) -> str:
    """A table's page: title, options that the recipes do not have, rows, and the order of the methods, if known."""
    others = _others(records)
    otherwise = f"Options other than the recipes': {', '.join(others)}.\n\n" if others else ""
    return f"## {TITLES[records[0].table]}\n\n{otherwise}{body(records)}"


def body(records: Sequence[Record]) -> str:
    """How the held-out texts were read, the rows, and the order of the methods, if the paper has numbers."""
    columns, commits = ({get(record) for record in records} for get in (lambda r: r.columns, _commit))
    if len(columns) == 1:
        read = f"Held-out texts are read in {columns.pop()} columns."
    else:
        read = "Held-out texts are read in as many columns as a row's batches in training have."
    made = f" Commit: {', '.join(sorted(commits))}." if commits != {""} else ""
    told = order(records)
    claimed = f"\nThe paper's order, pair by pair, and ours (differences in perplexity):\n\n{told}" if told else ""
    return f"{read}{made}\n\n{table(records)}{claimed}"


def _commit(record: Record) -> str:
    return (record.environment.get("commit") or "")[:10]


def _others(records: Sequence[Record]) -> list[str]:
    """What the records were made with that is neither their recipes' nor chosen on validation."""
    recipes = {recipe.row: recipe for recipe in TABLES[records[0].table]()}
    found = {
        f"data {Path(now).name}" if name == "data.name" else f"{name.partition('.')[2].replace('_', ' ')} {now}"
        for record in records
        for name, (_, now) in differing(
            options(chosen(recipes[record.row].config, record.chosen)), record.config
        ).items()
    }
    return sorted(found)


def figure(records: Sequence[Record]) -> Figure:
    """Figure 2: validation and training perplexity of seed 0."""
    return plots.learning_curves(
        {f"{row.first.method}{_gamma(row.first.spreads)}": row.first.log for row in rows(records)}
    )


def _gamma(spreads: Mapping[str, float]) -> str:
    return f", γ = {next(iter(spreads.values())):g}" if spreads else ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _range(values: Sequence[float], digits: int = 1) -> str:
    if not values:
        return "–"
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{mean(values):.{digits}f} ({low} to {high})"
