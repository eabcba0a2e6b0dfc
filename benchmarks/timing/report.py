"""What was measured, as text and as ``table.md``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from noisin_pyro.tables import aligned
from timing.comparisons import COMPARISONS
from timing.contestants import TITLES

HEADS = ["", "ms a step (quartiles)", "ratio (95 %)", "over the floor", "peak MB"]
LEGEND = """\
Times of a whole training step (forward, loss, backward, clipping, Adam), median over rounds in which all contestants
take turns in one process, with quartiles; ratios to the first line of each table, round by round, with their bootstrap
interval. The floor is the step's matrix products at the rate measured here for a large one, and Adam's traffic at the
bandwidth measured here. Memory is the peak above an idle process.
"""


def summary(name: str, told: dict[str, Any]) -> str:
    """A comparison for the terminal."""
    machine = told["machine"]
    where = (
        f"{told['device'] if told['device'] != 'cpu' else told['processor']}, {told['threads']} threads, "
        f"{machine['float32'] / 1e9:.0f} Gflop/s ({machine['bfloat16'] / 1e9:.0f} in bfloat16), "
        f"{machine['bandwidth'] / 1e9:.0f} GB/s"
    )
    lines = [f"\n{name}: {told['title']}", where, aligned([["", *HEADS[1:]], *_rows(told, plain=True)])]
    return "\n".join([*lines, *(f"  {line}" for line in _targets(told))])


def write_table(folder: Path) -> None:
    """Write ``table.md`` from what is in the folder."""
    found = {name: folder / f"{name}.json" for name in COMPARISONS}
    told = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in found.items() if path.exists()}
    if told:
        (folder / "table.md").write_text("\n".join(_markdown(told)), encoding="utf-8")


def _markdown(told: dict[str, Any]) -> Iterator[str]:
    yield "# Speed\n"
    yield LEGEND
    for content in told.values():
        machine = content["machine"]
        yield f"## {content['title']}\n"
        for row in (HEADS, ["---"] * len(HEADS), *_rows(content)):
            yield f"| {' | '.join(row)} |"
        device = content["processor"] if content["device"] == "cpu" else content["device"]
        data = ", ".join(sorted({entry["data"] for entry in content["entries"].values()}))
        yield (
            f"\n{device}, {content['threads']} threads, torch {content['versions']['torch']}; data: {data}; "
            f"{machine['float32'] / 1e9:,.0f} Gflop/s in float32, {machine['bfloat16'] / 1e9:,.0f} in bfloat16, "
            f"{machine['bandwidth'] / 1e9:,.0f} GB/s.\n"
        )
        yield from (f"- {line}" for line in _targets(content))
        yield ""


def _rows(told: dict[str, Any], plain: bool = False) -> Iterator[list[str]]:
    for name, entry in told["entries"].items():
        time, ratio, peak = entry["milliseconds"], entry.get("ratio"), entry["peak_bytes"]
        title = name if plain else name.replace(entry["contestant"], TITLES[entry["contestant"]], 1)
        least = sum(entry["floor_milliseconds"].values())
        yield [
            title,
            f"{time['median']:.2f} ({time['low']:.2f} to {time['high']:.2f})",
            "" if ratio is None else f"{ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})",
            f"{time['median'] / least:.2f}",
            "" if peak is None else f"{peak / 1e6:.0f}",
        ]


def _targets(told: dict[str, Any]) -> Iterator[str]:
    for target in told["targets"]:
        if "found" not in target:
            continue
        found = target["found"]
        interval = f" ({found['low']:.3f} to {found['high']:.3f})" if "low" in found else ""
        verdict = "met" if target["met"] else "missed"
        yield (
            f"{target['of']} / {target['to']}, {target['measure']}: {found['median']:.3f}{interval}, "
            f"wanted at most {target['limit']:.2f}: {verdict}"
        )
