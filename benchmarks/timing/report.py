"""The measurements as text for the terminal and as ``table.md``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from noisin_pyro._tables import aligned, markdown
from timing.comparisons import COMPARISONS
from timing.contestants import CONTESTANTS

NOTABLE_LOAD = 0.02  # share of the processors from which other processes are mentioned
LEGEND = """\
A whole training step (forward, loss, backward, clipping, Adam) in milliseconds: the median over rounds, with quartiles.
In a round all contestants of a table are timed one after the other in one process. The ratio is taken round by round to
the first line (in tables of growth, to the contestant's own smallest size), with a 95 % bootstrap interval. *To
noise-free* is the ratio to this library's own step without noise (γ = 0) at the same size: what noise costs, apart from
what the library's softmax and recurrence save. Tables that were measured before this step was included lack the column.
The roofline is the time of the step's matrix products at the rate measured for large ones, plus Adam's reads and writes
at the bandwidth measured. Memory is the peak above an idle process, of each contestant in a process of its own; page
faults are per step, for blocks that the allocator has returned to the system.
"""


def summary(name: str, result: dict[str, Any]) -> str:
    """A comparison for the terminal."""
    columns = _columns(result, lambda entry: entry)
    rows = [list(columns), *zip(*columns.values(), strict=True)]
    lines = [f"\n{name}: {result['title']}", _machine(result), aligned(rows)]
    return "\n".join([*lines, *(f"  {line}" for line in _targets(result))])


def write_table(folder: Path) -> None:
    """Write ``table.md`` from the JSON files in the folder."""
    paths = [folder / f"{name}.json" for name in COMPARISONS]
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
    if results:
        (folder / "table.md").write_text("\n".join(_sections(results)), encoding="utf-8")


def _sections(results: list[dict[str, Any]]) -> Iterator[str]:
    yield f"# Speed on a {'CPU' if results[0]['device'] == 'cpu' else 'GPU'}\n"
    yield LEGEND
    for result in results:
        columns = _columns(result, _title(result))
        yield f"## {result['title']}\n"
        yield markdown(list(columns), zip(*columns.values(), strict=True))
        yield f"{_machine(result)}.\n"
        yield from (f"- {line}" for line in _targets(result))
        yield ""


def _title(result: dict[str, Any]) -> Callable[[str], str]:
    def title(name: str) -> str:
        contestant = result["entries"][name]["contestant"]
        return name.replace(contestant, CONTESTANTS[contestant].title, 1)

    return title


def _machine(result: dict[str, Any]) -> str:
    """The machine and the data."""
    machine, device = result["machine"], result["processor"] if result["device"] == "cpu" else result["device"]
    share = result["others_share"]
    data = " and ".join(sorted({entry["data"] for entry in result["entries"].values()}))
    return (
        f"{device}, {result['threads']} threads, torch {result['versions']['torch']}, data: {data}; large products "
        f"{machine['float32'] / 1e9:,.0f} Gflop/s in float32 and {machine['bfloat16'] / 1e9:,.0f} in bfloat16, copies "
        f"{machine['bandwidth'] / 1e9:,.0f} GB/s"
        + (f"; other processes had {share:.0%} of the processors" if share > NOTABLE_LOAD else "")
    )


def _columns(result: dict[str, Any], title: Callable[[str], str]) -> dict[str, list[str]]:
    """The columns of a table by head, without those that have no number."""
    entries = result["entries"]
    cells: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "ms per step (quartiles)": lambda entry: _interval(entry["milliseconds"], 2),
        "ratio (95 %)": lambda entry: _interval(entry.get("ratio"), 3),
        "to noise-free (95 %)": lambda entry: _interval(entry.get("ratio_to_noise_free"), 3),
        "over the roofline": _over_roofline,
        "peak MB": lambda entry: f"{entry['peak_bytes'] / 1e6:.0f}" if "peak_bytes" in entry else "",
        "page faults": lambda entry: f"{entry['page_faults']:,.0f}" if "page_faults" in entry else "",
    }
    columns = {head: [cell(entry) for entry in entries.values()] for head, cell in cells.items()}
    return {"": [title(name) for name in entries]} | {head: cells for head, cells in columns.items() if any(cells)}


def _over_roofline(entry: Mapping[str, Any]) -> str:
    return f"{entry['milliseconds']['median'] / sum(entry['roofline_milliseconds'].values()):.2f}"


def _targets(result: dict[str, Any]) -> Iterator[str]:
    for target in result["targets"]:
        ratio, limit = target["ratio"], target["limit"]
        value = _interval(ratio, 3) if "low" in ratio else f"{ratio['median']:.3f}"
        verdict = "" if limit is None else f", target at most {limit:.2f}: {'met' if target['met'] else 'missed'}"
        yield f"{target['of']} / {target['to']}, {target['measure']}: {value}{verdict}"


def _interval(interval: dict[str, float] | None, digits: int) -> str:
    if interval is None:
        return ""
    median, low, high = (f"{interval[key]:.{digits}f}" for key in ("median", "low", "high"))
    return f"{median} ({low} to {high})"
