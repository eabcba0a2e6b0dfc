"""``gpu.py``: its commands can be parsed, its checks fail loudly, and a failing stage does not stop the others."""

import json
import math
import time
from pathlib import Path
from typing import Any

import pytest

from noisin_pyro.cli import _parse
from noisin_pyro.commands.reproduce import Reproduce
from noisin_pyro.commands.sweep import Sweep
from noisin_pyro.reproduction import icml


@pytest.fixture
def session(gpu: Any, tmp_path: Path) -> Any:
    return gpu.Session("cpu", tmp_path, epochs=1, seconds=0.0, deadline=time.monotonic() + 600)


def test_every_command_can_be_run_in_full_and_reduced(gpu: Any, session: Any) -> None:
    for line in (*gpu.TABLES.values(), gpu.SWEEP):
        full, reduced = (_parse(each.split()) for each in (line, session.reduced(line)))
        if isinstance(full, Reproduce) and isinstance(reduced, Reproduce):
            assert full._recipes() == reduced._recipes()
            assert (reduced.data, reduced.hidden_size, reduced.epochs, reduced.trial_epochs) == ("pydocs", 8, 1, 1)
        else:
            assert isinstance(full, Sweep) and isinstance(reduced, Sweep)
            assert full._space() == reduced._space()
            assert (reduced.shared.data.name, reduced.shared.optimization.epochs, reduced.trials) == ("pydocs", 1, 3)


def test_the_search_is_of_the_published_papers_medium_model_with_its_dropout(gpu: Any) -> None:
    sweep, recipe = _parse(gpu.SWEEP.split()), icml("icml-m", "D").config
    assert isinstance(sweep, Sweep)
    shared = sweep.shared
    assert (shared.data, shared.model, shared.optimization) == (recipe.data, recipe.model, recipe.optimization)


def test_the_most_valuable_stages_come_first(session: Any) -> None:
    assert list(session.stages())[:7] == [
        "checks",
        "table2",
        "table3",
        "table2-seeds",
        "table3-seeds",
        "ptb-m",
        "captured",
    ]


@pytest.mark.slow
def test_checks_that_need_no_gpu_pass_on_a_cpu(session: Any) -> None:
    session.check()
    result = json.loads((session.folder / "checks.json").read_text())
    assert result["differences"].keys() == {"backends", "captured steps"} and not result["failed"]
    assert all(0 <= value < 1e-9 for values in result["differences"].values() for value in values.values())


@pytest.mark.parametrize("value", [1e-6, math.nan])
def test_a_check_beyond_its_limit_fails_loudly_and_is_repeated(
    gpu: Any, session: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: float
) -> None:
    checks = gpu.checks.__globals__
    monkeypatch.setitem(checks, "backend_differences", lambda device: {"tanh, gaussian": value, "lstm, gaussian": 0.0})
    monkeypatch.setitem(checks, "captured_differences", lambda device: {})
    for _ in range(2):
        assert gpu.main("cpu", session.folder, stages=("checks",)) == 1
        printed = capsys.readouterr()
        assert f"backends: tanh, gaussian differs by {value:.2g}, more than 1e-09" in printed.out
        assert "0 of 1 stages done" in printed.out and "FAILED: checks" in printed.err


def test_a_failing_stage_does_not_stop_the_others(gpu: Any, session: Any) -> None:
    def fail() -> None:
        session.run([gpu.sys.executable, "-c", "raise SystemExit(3)"])

    statuses = gpu.run_stages({"bad": fail, "good": lambda: None}, session.folder, session.deadline)
    assert statuses["good"] == "done" and statuses["bad"].startswith("failed: ") and "status 3" in statuses["bad"]
    assert json.loads((session.folder / "progress.json").read_text()) == statuses


def test_at_the_time_limit_it_says_how_far_it_got(gpu: Any, tmp_path: Path) -> None:
    session = gpu.Session("cpu", tmp_path, epochs=1, seconds=0.0, deadline=time.monotonic() + 4.0)
    stages = {
        "short": lambda: None,
        "long": lambda: session.run([gpu.sys.executable, "-c", "import time; time.sleep(60)"]),
        "other": lambda: None,
    }
    statuses = gpu.run_stages(stages, tmp_path, session.deadline)
    assert statuses == {"short": "done", "long": "out of time", "other": "not started"}


def test_unknown_stages_and_missing_gpus_are_refused(gpu: Any, tmp_path: Path) -> None:
    assert gpu.main("cpu", tmp_path, stages=("table9",)) == 2
    if not gpu.torch.cuda.is_available():
        assert gpu.main("cuda", tmp_path) == 2
