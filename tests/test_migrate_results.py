"""Migration of results on disk: each renaming in each kind of file, and nothing else."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def migration(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool as a module."""
    spec = importlib.util.spec_from_file_location("migrate_results", ROOT / "tools" / "migrate_results.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def _write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def _files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_record_is_migrated_once(migration: ModuleType, tmp_path: Path) -> None:
    record = _write(tmp_path / "table2" / "row" / "seed-0.json", {"table": "table2", "unsaid": ["clipping"], "seed": 0})
    other = _write(tmp_path / "table2" / "row" / "seed-0" / "config.json", {"unsaid": 1})
    assert migration.migrate(tmp_path) == [record]
    content = json.loads(record.read_text(encoding="utf-8"))
    assert list(content.items()) == [("table", "table2"), ("unspecified", ["clipping"]), ("seed", 0)]
    assert json.loads(other.read_text(encoding="utf-8")) == {"unsaid": 1}
    before = _files(tmp_path)
    assert migration.migrate(tmp_path) == [] and _files(tmp_path) == before


def test_keys_and_values_are_renamed_in_every_kind_of_file(
    migration: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamings = [
        migration.Renaming("a group", ("config", "result"), migration.key("old", "new")),
        migration.Renaming("a group", ("search",), migration.key("old", "new", "config")),
        migration.Renaming("searched fields", ("search",), migration.key("old", "new", "of_each_trial", "*", "values")),
        migration.Renaming("searched fields", ("journal",), migration.key("old", "new", "params")),
        migration.Renaming("a value", ("config", "speed"), migration.value("a", "b", "field", "new")),
    ]
    monkeypatch.setattr(migration, "RENAMINGS", renamings)
    trial = {"values": {"old.field": 1, "older.field": 2}}
    config = _write(tmp_path / "config.json", {"first": 0, "old": {"field": "a"}})
    result = _write(tmp_path / "result.json", {"old": {"field": "a"}})
    search = _write(tmp_path / "search.json", {"config": {"old": 1}, "of_each_trial": [trial]})
    speed = _write(tmp_path / "speed" / "cpu" / "times.json", {"new": {"field": "a"}})
    journal = tmp_path / "optuna.journal"
    journal.write_text('{"op_code":0}\n{"op_code":4,"params":{"old.field":1}}\n', encoding="utf-8")
    assert set(migration.migrate(tmp_path)) == {config, result, search, speed, journal}
    assert json.loads(config.read_text()) == {"first": 0, "new": {"field": "b"}}
    assert json.loads(result.read_text()) == {"new": {"field": "a"}}
    expected = {"config": {"new": 1}, "of_each_trial": [{"values": {"new.field": 1, "older.field": 2}}]}
    assert json.loads(search.read_text()) == expected
    assert json.loads(speed.read_text()) == {"new": {"field": "b"}}
    assert journal.read_text() == '{"op_code":0}\n{"op_code":4,"params":{"new.field":1}}\n'
    assert migration.migrate(tmp_path) == []


def test_committed_results_are_migrated(migration: ModuleType, tmp_path: Path) -> None:
    files = [path for path in (ROOT / "results").rglob("*") if path.suffix in (".json", ".journal")]
    assert files
    for path in files:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    assert migration.migrate(tmp_path) == []
