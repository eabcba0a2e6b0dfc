"""What was measured, for the terminal and as ``table.md``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from noisin_pyro._tables import aligned
from timing.comparisons import COMPARISONS
from timing.contestants import TITLES

HEADS = ["", "ms a step (quartiles)", "ratio (95 %)", "over the floor", "peak MB", "page faults"]
WORTH_TELLING = 0.02  # of the processors
LEGEND = """\
A whole training step (forward, loss, backward, clipping, Adam) in milliseconds: the median over rounds, in which all
contestants of a table take turns in one process, with quartiles. Ratios are taken round by round, to the first line
(in tables of growth, to the contestant's own smallest size), with a bootstrap interval of 95 %. The floor is the time
that the step's matrix products would take at the rate measured here for large ones, and Adam's reading and writing at
the bandwidth measured here. Memory is the peak above an idle process, each contestant in its own; page faults are those
of a step there: blocks that the allocator gave back to the system, and took again.
"""


def summary(name: str, told: dict[str, Any]) -> str:
    """A comparison for the terminal."""
    lines = [f"\n{name}: {told['title']}", _machine(told), aligned([[name, *HEADS[1:]], *_rows(told)])]
    return "\n".join([*lines, *(f"  {line}" for line in _targets(told))])


def write_table(folder: Path) -> None:
    """Write ``table.md`` from what is in the folder."""
    paths = [folder / f"{name}.json" for name in COMPARISONS]
    told = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    if told:
        (folder / "table.md").write_text("\n".join(_markdown(told)), encoding="utf-8")


def _markdown(told: list[dict[str, Any]]) -> Iterator[str]:
    yield f"# Speed on a {'CPU' if told[0]['device'] == 'cpu' else 'GPU'}\n"
    yield LEGEND
    for content in told:
        yield f"## {content['title']}\n"
        for row in (HEADS, ["---"] * len(HEADS), *_rows(content, TITLES)):
            yield f"| {' | '.join(row)} |"
        yield f"\n{_machine(content)}.\n"
        yield from (f"- {line}" for line in _targets(content))
        yield ""


def _machine(told: dict[str, Any]) -> str:
    """Where, and on which data."""
    machine, device = told["machine"], told["processor"] if told["device"] == "cpu" else told["device"]
    share = told["busy_elsewhere"]
    data = " and ".join(sorted({entry["data"] for entry in told["entries"].values()}))
    return (
        f"{device}, {told['threads']} threads, torch {told['versions']['torch']}, data: {data}; large products "
        f"{machine['float32'] / 1e9:,.0f} Gflop/s in float32 and {machine['bfloat16'] / 1e9:,.0f} in bfloat16, copies "
        f"{machine['bandwidth'] / 1e9:,.0f} GB/s"
        + (f"; others had {share:.0%} of the processors" if share > WORTH_TELLING else "")
    )


def _rows(told: dict[str, Any], titles: dict[str, str] | None = None) -> Iterator[list[str]]:
    for name, entry in told["entries"].items():
        time, ratio, memory = entry["milliseconds"], entry.get("ratio"), "peak_bytes" in entry
        contestant = entry["contestant"]
        yield [
            name if titles is None else name.replace(contestant, titles[contestant], 1),
            f"{time['median']:.2f} ({time['low']:.2f} to {time['high']:.2f})",
            "" if ratio is None else f"{ratio['median']:.3f} ({_interval(ratio)})",
            f"{time['median'] / sum(entry['floor_milliseconds'].values()):.2f}",
            f"{entry['peak_bytes'] / 1e6:.0f}" if memory else "",
            f"{entry['page_faults']:,.0f}" if memory else "",
        ]


def _targets(told: dict[str, Any]) -> Iterator[str]:
    for target in told["targets"]:
        found, limit = target["found"], target["limit"]
        interval = f" ({_interval(found)})" if "low" in found else ""
        verdict = "" if limit is None else f", wanted at most {limit:.2f}: {'met' if target['met'] else 'missed'}"
        yield f"{target['of']} / {target['to']}, {target['measure']}: {found['median']:.3f}{interval}{verdict}"


def _interval(ratio: dict[str, float]) -> str:
    return f"{ratio['low']:.3f} to {ratio['high']:.3f}"
