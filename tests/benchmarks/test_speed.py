"""The command ``speed.py``: its files, skipped comparisons, and verdicts on targets."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.slow

Timing = Callable[[str], Any]


@pytest.fixture
def tiny(speed: Any, timing: Timing, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command with a single small comparison and fixed rates and memory."""
    comparisons = timing("comparisons")
    shape = timing("shapes").Shape(units=4, batch=2, window=3, outputs=9)
    names = ("plain", "ours-noise-free", "ours", "loop")
    entries = {name: comparisons.Entry(name, shape, "plain", "ours-noise-free") for name in names}
    targets = (
        comparisons.Target("ours", "plain", 1e9),
        comparisons.Target("ours", "loop", 1e-9),
        comparisons.Target("loop", "plain", measure="memory"),
    )
    small = {"small": comparisons.Comparison("Small", entries, targets)}
    for module in (speed, timing("comparisons"), timing("report")):
        monkeypatch.setattr(module, "COMPARISONS", small)
    machine = timing("roofline").Machine(1e9, 1e9, 1e9)
    monkeypatch.setattr(timing("measure"), "measure_machine", lambda *_: machine)
    memory, peaks = timing("memory"), {"plain": 4, "ours-noise-free": 3, "ours": 5, "loop": 6}
    monkeypatch.setattr(timing("measure"), "measure_memory", lambda name, *_: memory.Memory(peaks[name], 0.0))
    yield speed
    torch.set_num_threads(1)


def test_results_say_what_they_depend_on_and_are_not_measured_twice(
    tiny: Any, timing: Timing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = timing("measure").MeasureOptions(max_rounds=3, min_rounds=3, seconds=0.0, seed=7)
    tiny.main(threads=1, folder=tmp_path, options=options)
    path = tmp_path / "small.json"
    result = json.loads(path.read_text())
    assert (
        result["seed"] == 7 and result["threads"] == 1 and result["device"] == "cpu" and "torch" in result["versions"]
    )
    assert result["processor"] and result["settings"]["max_rounds"] == 3 and result["settings"]["clip"] == 5.0
    assert list(result["entries"]) == ["plain", "ours-noise-free", "ours", "loop"]
    for entry in result["entries"].values():
        rounds = sorted(entry["rounds_milliseconds"])
        assert len(rounds) == 3 and entry["milliseconds"]["median"] == pytest.approx(rounds[1], rel=1e-4)
        assert entry["data"] == "random" and entry["shape"]["units"] == 4
        assert entry["ratio"].keys() == entry["ratio_to_noise_free"].keys() == {"median", "low", "high"}
    assert result["entries"]["plain"]["ratio"]["median"] == 1.0
    assert result["entries"]["ours-noise-free"]["ratio_to_noise_free"]["median"] == 1.0
    met, missed, memory = result["targets"]
    assert (met["met"], missed["met"], memory["met"]) == (True, False, None)
    assert memory["ratio"] == {"median": 6 / 4}
    printed = capsys.readouterr().out
    assert "target at most 0.00: missed" in printed and "loop / plain, memory: 1.500\n" in printed

    table = (tmp_path / "table.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert (
        len(rows) == 6
        and "to noise-free (95 %)" in rows[0]
        and rows[2].startswith("| deterministic")
        and "| 1.000 (1.000 to 1.000) |" in rows[2]
    )

    before = path.stat().st_mtime_ns
    tiny.main(threads=1, folder=tmp_path, options=options)
    assert path.stat().st_mtime_ns == before and "missed" in capsys.readouterr().out
    tiny.main(threads=1, folder=tmp_path, options=options, overwrite=True)
    assert path.stat().st_mtime_ns > before


def test_comparisons_can_be_restricted_to_some_contestants(tiny: Any, timing: Timing, tmp_path: Path) -> None:
    options = timing("measure").MeasureOptions(max_rounds=2, min_rounds=2, seconds=0.0, memory=False)
    tiny.main(threads=1, folder=tmp_path, options=options, contestants=("ours", "loop"))
    result = json.loads((tmp_path / "small.json").read_text())
    assert list(result["entries"]) == ["ours", "loop"] and "ratio" not in result["entries"]["ours"]
    assert [(target["of"], target["to"]) for target in result["targets"]] == [("ours", "loop")]
    assert all("peak_bytes" not in entry for entry in result["entries"].values())


def test_unknown_names_raise(speed: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"contestants must be one of plain, .*'our'; did you mean 'ours'"):
        speed.main(contestants=("our",), folder=tmp_path)
    with pytest.raises(ValueError, match=r"comparisons must be among table2-1layer, .*got 'table4'"):
        speed.main(comparisons=("table4",), folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_ratio_is_between_entries_of_its_comparison(timing: Timing) -> None:
    module = timing("comparisons")
    for comparison in module.COMPARISONS.values():
        assert all(entry.base in comparison.entries for entry in comparison.entries.values())
        assert all({target.of, target.to} <= comparison.entries.keys() for target in comparison.targets)
        for entry in comparison.entries.values():
            noise_free = comparison.entries[entry.noise_free]
            assert noise_free.contestant in ("ours-noise-free", "noise-free", "softmax")
            assert noise_free.shape == dataclasses.replace(entry.shape, particles=1)
        assert {entry.contestant for entry in comparison.entries.values()} <= timing("contestants").CONTESTANTS.keys()
    assert module.matching(("table2", "growth-units")) == ["table2-1layer", "table2-2layers", "growth-units"]
    assert module.matching(()) == list(module.COMPARISONS)


@pytest.mark.parametrize("data", ["ptb", "jsb"])
def test_windows_continue_the_one_before(timing: Timing, data: str) -> None:
    shape = timing("shapes").Shape(batch=3, window=4, outputs=9, data=data)
    batches = timing("shapes").windows(shape, torch.device("cpu"), count=5)
    assert [batch.carried for batch in batches] == [False, True, True, True, True]
    inputs, targets = (torch.cat([getattr(batch, name) for batch in batches], 1) for name in ("inputs", "targets"))
    assert inputs.shape[:2] == (3, 20) and torch.equal(inputs[:, 1:], targets[:, :-1])
    assert torch.equal(inputs[1:, 0], targets[:-1, -1])  # columns continue the one before too
    assert all(batch.lengths is None for batch in batches)


def test_memory_is_added_to_results_without_it(tiny: Any, timing: Timing, tmp_path: Path) -> None:
    options = timing("measure").MeasureOptions(max_rounds=3, min_rounds=3, seconds=0.0, memory=False)
    tiny.main(threads=1, folder=tmp_path, options=options)
    before = json.loads((tmp_path / "small.json").read_text())
    assert [target["measure"] for target in before["targets"]] == ["time", "time"]
    tiny.main(threads=1, folder=tmp_path, options=timing("measure").MeasureOptions())
    result = json.loads((tmp_path / "small.json").read_text())
    assert [entry["peak_bytes"] for entry in result["entries"].values()] == [4, 3, 5, 6]
    assert result["targets"][-1]["ratio"] == {"median": 6 / 4}
    for name, entry in before["entries"].items():
        assert entry.items() <= result["entries"][name].items()
    assert result["targets"][:2] == before["targets"] and result["settings"]["memory"]


def test_the_committed_table_is_made_from_the_committed_results(timing: Timing, tmp_path: Path) -> None:
    committed = Path(__file__).parents[2] / "results" / "speed" / "cpu"
    names = [name for name in timing("comparisons").COMPARISONS if (committed / f"{name}.json").exists()]
    assert names
    for name in names:
        shutil.copy(committed / f"{name}.json", tmp_path)
        assert name in timing("report").summary(name, json.loads((tmp_path / f"{name}.json").read_text()))
    timing("report").write_table(tmp_path)
    assert (tmp_path / "table.md").read_text() == (committed / "table.md").read_text()
