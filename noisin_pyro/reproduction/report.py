"""A table as text: the paper's numbers, ours, and whether the paper's order holds, made from the records alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, NamedTuple

from noisin_pyro import plots
from noisin_pyro._files import atomic_write, exclusive_lock
from noisin_pyro._tables import markdown
from noisin_pyro.reproduction.comparisons import compare_with, comparison_table
from noisin_pyro.reproduction.icml import ICML
from noisin_pyro.reproduction.recipes import TABLES
from noisin_pyro.reproduction.records import Record, differences, options, read_records
from noisin_pyro.reproduction.studies import BASELINES, CLAIMS, NOISES
from noisin_pyro.search.search_space import with_values

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "table2": "Table 2 of the draft: Penn Treebank, test perplexity",
    "table3": "Table 3 of the draft: WikiText-2, test perplexity",
    "figure2": "Figure 2 of the draft: Penn Treebank, one sigmoid layer of 256 units",
    "zaremba": "The small network of Zaremba et al. (2014): Penn Treebank, test perplexity",
    **{name: f"The published paper's table: {table.title} model, perplexity" for name, table in ICML.items()},
    NOISES: "Which noise? Every family on the built-in text, test perplexity",
    CLAIMS: "Claims of the draft without a table: built-in text, test perplexity",
}
HEADS = ("row", "paper", "test, noise off", "test, ensemble", "validation", "γ", "chosen", "epochs", "seeds")


class RowRecords(NamedTuple):
    """The records of a row, one for each seed."""

    records: list[Record]

    @property
    def first(self) -> Record:
        return self.records[0]

    def values(self, field: str) -> list[float]:
        """A number of each record that has it."""
        values = [getattr(record, field) for record in self.records]
        return [value for value in values if value is not None]


def rows(records: Iterable[Record]) -> list[RowRecords]:
    """The records by row, in their table's order."""
    by_row: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: record.seed):
        by_row.setdefault(record.row, []).append(record)
    order = [recipe.row for records in by_row.values() for recipe in TABLES[records[0].table]()]
    return [RowRecords(by_row[row]) for row in dict.fromkeys(order) if row in by_row]


def table(records: Sequence[Record]) -> str:
    """A line of Markdown for each row: means over its seeds, with their range."""
    lines = []
    for row in rows(records):
        first = row.first
        lines.append(
            (
                first.row,
                _number(first.paper_test_perplexity),
                _range(row.values("test_perplexity")),
                _range(row.values("ensemble_test_perplexity")),
                _range(row.values("validation_perplexity")),
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
    """That one method is better than another in the paper, and what is measured here.

    Attributes:
        group: the group of both rows.
        better, worse: the first record of each row, in the paper's order.
        verdict: on the method that is better in the paper. ``"better"`` or ``"worse"`` if all seeds of one row lie
            beyond all seeds of the other by more than the Monte Carlo error, ``"ahead"`` or ``"behind"`` if a row has
            one seed only, otherwise ``"tie"``; ``None`` if neither row has the number.
        difference: of the means, positive in the paper's order.
        seeds: number of seeds of the row with fewer.
    """

    group: str
    better: Record
    worse: Record
    verdict: str | None
    difference: float
    seeds: int

    @property
    def paper_difference(self) -> float:
        """The difference in the paper."""
        assert self.better.paper_test_perplexity is not None and self.worse.paper_test_perplexity is not None
        return self.worse.paper_test_perplexity - self.better.paper_test_perplexity


def claims(records: Sequence[Record], number: str = "test_perplexity") -> list[Claim]:
    """Every pair of rows of a group in the paper's order, and whether the order is the same here.

    Args:
        records: of one table.
        number: ``"test_perplexity"`` (noise off) or ``"ensemble_test_perplexity"``; a row without an ensemble, in which
            nothing is random, is compared by its test perplexity.
    """
    result = []
    with_number = [row for row in rows(records) if row.first.paper_test_perplexity is not None]
    for one, other in itertools.combinations(with_number, 2):
        if one.first.group != other.first.group or one.first.paper_test_perplexity == other.first.paper_test_perplexity:
            continue
        better, worse = sorted((one, other), key=lambda row: row.first.paper_test_perplexity or 0.0)
        if not (better.values(number) or worse.values(number)):
            result.append(Claim(one.first.group, better.first, worse.first, None, math.nan, 0))
            continue
        ours, theirs = _numbers(better, number), _numbers(worse, number)
        difference = mean(value for value, _ in theirs) - mean(value for value, _ in ours)
        seeds = min(len(ours), len(theirs))
        result.append(Claim(one.first.group, better.first, worse.first, _verdict(ours, theirs), difference, seeds))
    return result


def _numbers(row: RowRecords, number: str) -> list[tuple[float, float]]:
    """The number of each seed, and its Monte Carlo error, which is 0 with the noise off."""
    if not row.values(number):
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
    """Whether every number of one row is lower than every number of the other by more than their joint error."""
    return all(
        high - low > math.hypot(low_error, high_error) for low, low_error in lower for high, high_error in higher
    )


def order(records: Sequence[Record]) -> str:
    """A line of Markdown for each claim, noise off and as an ensemble."""
    pairs = zip(claims(records), claims(records, "ensemble_test_perplexity"), strict=True)
    heads = ("group", "the paper", "by", "seeds", "here, noise off", "here, ensemble")
    lines = []
    for off, ensemble in pairs:
        claim = f"{off.better.method} better than {off.worse.method}"
        lines.append((off.group, claim, f"{off.paper_difference:.1f}", str(off.seeds), _shown(off), _shown(ensemble)))
    return markdown(heads, lines) if lines else ""


def _shown(claim: Claim) -> str:
    return "–" if claim.verdict is None else f"{claim.verdict}: {claim.difference:+.1f}".replace("-", "−")


def write(folder: Path, name: str) -> None:
    """Write the table ``NAME.md`` from the records in ``folder``, and its picture ``NAME.png`` if it has one."""
    if not (folder / name).exists():
        return
    with exclusive_lock(folder / name, wait=True):  # else a process that has read fewer could write last
        records = read_records(folder, name)
        if not records:
            return
        with atomic_write(folder / f"{name}.md") as file:
            file.write(text(records).encode())
        if name in FIGURES:
            with atomic_write(folder / f"{name}.png") as file:
                FIGURES[name](records).savefig(file, format="png")


def text(records: Sequence[Record]) -> str:
    """A table with its title, and with the options that differ from the recipes."""
    options = _changed_options(records)
    changed = f"Options other than the recipes': {', '.join(options)}.\n\n" if options else ""
    return f"## {TITLES[records[0].table]}\n\n{changed}{body(records)}"


def body(records: Sequence[Record]) -> str:
    """How held-out texts were read, the rows, and the order of the methods if the paper has numbers."""
    columns, commits = ({get(record) for record in records} for get in (lambda r: r.columns, _commit))
    if len(columns) == 1:
        read = f"Held-out texts are read in {columns.pop()} columns."
    else:
        read = "Held-out texts are read in as many columns as a row's batches in training have."
    made = f" Commit: {', '.join(sorted(commits))}." if commits != {""} else ""
    lines = order(records)
    claimed = f"\nThe paper's order, pair by pair, and ours (differences in perplexity):\n\n{lines}" if lines else ""
    compared = _compared(records)
    return f"{read}{made}\n\n{table(records)}{claimed}{compared}"


def _compared(records: Sequence[Record]) -> str:
    """The comparisons of a study with its baselines; empty for a table of a paper."""
    perplexities = {row.first.method: row.values("test_perplexity") for row in rows(records)}
    comparisons = compare_with(perplexities, BASELINES.get(records[0].table, ()))
    if not comparisons:
        return ""
    lines = comparison_table(comparisons)
    return f"\nNoise off, Welch's t-test over seeds, corrected for {len(comparisons)} comparisons:\n\n{lines}"


def _commit(record: Record) -> str:
    return (record.environment.get("commit") or "")[:10]


def _changed_options(records: Sequence[Record]) -> list[str]:
    """The options of the records that are neither their recipes' nor chosen on validation."""
    recipes = {recipe.row: recipe for recipe in TABLES[records[0].table]()}
    changed = {
        f"data {Path(now).name}" if name == "data.name" else f"{name.partition('.')[2].replace('_', ' ')} {now}"
        for record in records
        for name, (_, now) in differences(
            options(with_values(recipes[record.row].config, record.chosen)), record.config
        ).items()
    }
    return sorted(changed)


def figure(records: Sequence[Record]) -> Figure:
    """Figure 2: validation and training perplexity of each row's first seed."""
    return plots.learning_curves(
        {f"{row.first.method}{_gamma(row.first.spreads)}": row.first.log for row in rows(records)}
    )


def dots(records: Sequence[Record]) -> Figure:
    """A study: test perplexity of each seed of each row, with its baselines as lines."""
    values = {row.first.method: row.values("test_perplexity") for row in rows(records)}
    return plots.seed_comparison(values, "test perplexity, noise off (lower is better)", BASELINES[records[0].table])


FIGURES = {"figure2": figure, NOISES: dots, CLAIMS: dots}
"""The picture of each table that has one."""


def _gamma(spreads: Mapping[str, float]) -> str:
    return f", γ = {next(iter(spreads.values())):g}" if spreads else ""


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _range(values: Sequence[float], digits: int = 1) -> str:
    if not values:
        return "–"
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{mean(values):.{digits}f} ({low} to {high})"
