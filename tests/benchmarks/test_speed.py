"""The command: what it writes, what it skips, and the verdicts that it comes to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Timing = Callable[[str], Any]


@pytest.fixture
def tiny(speed: Any, timing: Timing, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command, in a world of one small comparison."""
    comparisons = timing("comparisons")
    shape = timing("shapes").Shape(units=4, batch=2, window=3, outputs=9)
    entries = {name: comparisons.Entry(name, shape, "plain") for name in ("plain", "ours", "loop")}
    targets = (
        comparisons.Target("ours", "plain", 1e9),
        comparisons.Target("ours", "loop", 1e-9),
        comparisons.Target("loop", "plain", measure="memory"),
    )
    small = {"small": comparisons.Comparison("Small", entries, targets)}
    for module in (speed, timing("comparisons"), timing("report")):
        monkeypatch.setattr(module, "COMPARISONS", small)
    machine = timing("floor").Machine(1e9, 1e9, 1e9)
    monkeypatch.setattr(timing("run"), "measure", lambda *_: machine)
    memory, peaks = timing("memory"), {"plain": 4, "ours": 5, "loop": 6}
    monkeypatch.setattr(memory, "taken", lambda name, *_: memory.Memory(peaks[name], 0.0))
    yield speed
    torch.set_num_threads(1)


def test_all_that_numbers_depend_on_is_written_and_nothing_is_run_twice(
    tiny: Any, timing: Timing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    how = timing("run").How(rounds=3, least=3, seconds=0.0, seed=7)
    tiny.main(threads=1, folder=tmp_path, how=how)
    path = tmp_path / "small.json"
    told = json.loads(path.read_text())
    assert told["seed"] == 7 and told["threads"] == 1 and told["device"] == "cpu" and "torch" in told["versions"]
    assert told["processor"] and told["settings"]["rounds"] == 3 and told["settings"]["clip"] == 5.0
    assert list(told["entries"]) == ["plain", "ours", "loop"]
    for entry in told["entries"].values():
        rounds = sorted(entry["rounds_milliseconds"])
        assert len(rounds) == 3 and entry["milliseconds"]["median"] == pytest.approx(rounds[1], rel=1e-4)
        assert entry["data"] == "random" and entry["shape"]["units"] == 4
    met, missed, memory = told["targets"]
    assert (met["met"], missed["met"], memory["met"]) == (True, False, None)
    assert memory["found"] == {"median": 6 / 4}
    printed = capsys.readouterr().out
    assert "wanted at most 0.00: missed" in printed and "loop / plain, memory: 1.500\n" in printed

    table = (tmp_path / "table.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len(rows) == 5 and rows[2].startswith("| deterministic") and "| 1.000 (1.000 to 1.000) |" in rows[2]

    before = path.stat().st_mtime_ns
    tiny.main(threads=1, folder=tmp_path, how=how)
    assert path.stat().st_mtime_ns == before and "missed" in capsys.readouterr().out
    tiny.main(threads=1, folder=tmp_path, how=how, again=True)
    assert path.stat().st_mtime_ns > before


def test_some_contestants_alone(tiny: Any, timing: Timing, tmp_path: Path) -> None:
    how = timing("run").How(rounds=2, least=2, seconds=0.0, memory=False)
    tiny.main(threads=1, folder=tmp_path, how=how, contestants=("ours", "loop"))
    told = json.loads((tmp_path / "small.json").read_text())
    assert list(told["entries"]) == ["ours", "loop"] and "ratio" not in told["entries"]["ours"]
    assert [(target["of"], target["to"]) for target in told["targets"]] == [("ours", "loop")]
    assert all("peak_bytes" not in entry for entry in told["entries"].values())


def test_mistakes_are_told(speed: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"contestants must be one of plain, .*'our'; did you mean 'ours'"):
        speed.main(contestants=("our",), folder=tmp_path)
    with pytest.raises(ValueError, match=r"shapes must be among table2-1layer, .*got 'table4'"):
        speed.main(shapes=("table4",), folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_ratio_is_between_entries_that_are_there(timing: Timing) -> None:
    module = timing("comparisons")
    for comparison in module.COMPARISONS.values():
        assert all(entry.base in comparison.entries for entry in comparison.entries.values())
        assert all({target.of, target.to} <= comparison.entries.keys() for target in comparison.targets)
        assert {entry.contestant for entry in comparison.entries.values()} <= timing("contestants").TITLES.keys()
    assert module.selected(("table2", "growth-units")) == ["table2-1layer", "table2-2layers", "growth-units"]
    assert module.selected(()) == list(module.COMPARISONS)


@pytest.mark.parametrize("data", ["ptb", "jsb"])
def test_windows_go_on_where_the_last_one_ended(timing: Timing, data: str) -> None:
    shape = timing("shapes").Shape(batch=3, window=4, outputs=9, data=data)
    batches = timing("shapes").windows(shape, torch.device("cpu"), most=5)
    assert [batch.carried for batch in batches] == [False, True, True, True, True]
    inputs, targets = (torch.cat([getattr(batch, name) for batch in batches], 1) for name in ("inputs", "targets"))
    assert inputs.shape[:2] == (3, 20) and torch.equal(inputs[:, 1:], targets[:, :-1])
    assert torch.equal(inputs[1:, 0], targets[:-1, -1])  # and columns where the one before ended
    assert all(batch.lengths is None for batch in batches)


def test_memory_that_was_left_out_is_measured_later(tiny: Any, timing: Timing, tmp_path: Path) -> None:
    how = timing("run").How(rounds=3, least=3, seconds=0.0, memory=False)
    tiny.main(threads=1, folder=tmp_path, how=how)
    before = json.loads((tmp_path / "small.json").read_text())
    assert [target["measure"] for target in before["targets"]] == ["time", "time"]
    tiny.main(threads=1, folder=tmp_path, how=timing("run").How())
    told = json.loads((tmp_path / "small.json").read_text())
    assert [entry["peak_bytes"] for entry in told["entries"].values()] == [4, 5, 6]
    assert told["targets"][-1]["found"] == {"median": 6 / 4}
    for name, entry in before["entries"].items():
        assert entry.items() <= told["entries"][name].items()
    assert told["targets"][:2] == before["targets"] and told["settings"]["memory"]
