"""Damaged journals: whole records are read, whatever lies between them; what cannot be read is refused."""

import json
import logging
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest

from noisin_pyro.search import search
from noisin_pyro.search.optuna_study import JOURNAL, add_trial, open_journal, open_study
from noisin_pyro.search.search_space import Range

from .runs import Texts, small_config

SPACE = {"noise.spread": Range(0.1, 0.8)}
VALUES = [0.2, 0.4, 0.6]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """The journal of three trials, the first of them done."""
    study = open_study(open_journal(tmp_path / JOURNAL), "study", None)
    for value in VALUES:
        add_trial(study, {"noise.spread": value}, SPACE)
    study.tell(0, 1.5)
    return tmp_path / JOURNAL


@pytest.fixture(autouse=True)
def quiet_optuna() -> Iterator[None]:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def trials(journal: Path) -> list[tuple[float, str]]:
    study = open_study(open_journal(journal), "study", None)
    return [(trial.params["noise.spread"], trial.state.name) for trial in study.trials]


WHOLE = [(0.2, "COMPLETE"), (0.4, "RUNNING"), (0.6, "RUNNING")]


def last_two_joined(lines: list[bytes]) -> bytes:
    return b"\n".join(lines[:-2]) + b"\n" + lines[-2] + lines[-1] + b"\n"


HARMLESS: dict[str, Callable[[list[bytes]], bytes]] = {
    "blank lines": lambda lines: b"\n" + b"\n\n  \n".join(lines) + b"\n\n",
    "zero bytes between lines": lambda lines: (b"\n" + b"\0" * 512).join(lines) + b"\n" + b"\0" * 4096,
    "zero bytes in a line of their own": lambda lines: b"\n\0\0\0\n".join(lines) + b"\n\0\0\n",
    "two records in a line": last_two_joined,
    "all records in a line": lambda lines: b"".join(lines) + b"\n",
    "line ends of Windows": lambda lines: b"\r\n".join(lines) + b"\r\n",
    "half a record at the end": lambda lines: b"\n".join(lines) + b'\n{"op_code":4,"worker',
}


@pytest.mark.parametrize("damage", HARMLESS)
def test_whole_records_are_read_without_a_word(journal: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    lines = journal.read_bytes().splitlines()
    journal.write_bytes(HARMLESS[damage](lines))
    with caplog.at_level(logging.WARNING, "noisin_pyro"):
        assert trials(journal) == WHOLE
    assert not caplog.records
    assert journal.read_bytes().splitlines()[: len(lines)] == lines
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())


LOST: dict[str, Callable[[list[bytes]], bytes]] = {
    "a killed writer's half before another's record": lambda lines: (
        b"\n".join(lines[:-1]) + b'\n{"op_code":6,"worker_id":"x","tri' + lines[-1] + b"\n"
    ),
    "a half in a line of its own": lambda lines: b"\n".join(lines) + b'\n{"op_code":6,"worker\n',
    "a record inside another": lambda lines: (
        b"\n".join(lines[:-1]) + b'\n{"op_code":6,"wor' + lines[-1] + b'ker_id":"x"}\n'
    ),
    "words": lambda lines: b"\n".join(lines) + b"\nInput/output error\n",
}


@pytest.mark.parametrize("damage", LOST)
def test_half_records_are_reported_and_lost(journal: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    journal.write_bytes(LOST[damage](journal.read_bytes().splitlines()))
    with caplog.at_level(logging.WARNING, "noisin_pyro"):
        assert trials(journal) == WHOLE
    (record,) = caplog.records
    line = 5 if "another" in damage else 6  # the fixture writes five records
    assert record.getMessage() == f"warning: {journal} had half a record in line {line}, which is lost"
    caplog.clear()
    with caplog.at_level(logging.WARNING, "noisin_pyro"):
        assert trials(journal) == WHOLE
    assert not caplog.records


@pytest.mark.parametrize("lost", [slice(1, 2), slice(1, None), slice(0, None)])
def test_a_journal_that_has_lost_trials_is_refused(texts: Texts, tmp_path: Path, lost: slice) -> None:
    """Optuna counts trials, so that a later one would take the place of one that is lost."""
    options: dict[str, Any] = {"trials": 2, "trial_epochs": 1, "finish": False}
    search(small_config(texts, epochs=1), SPACE, tmp_path / "s", **options)
    journal, summary = tmp_path / "s" / JOURNAL, (tmp_path / "s" / "search.json").read_bytes()
    lines = journal.read_bytes().splitlines(keepends=True)
    created = [index for index, line in enumerate(lines) if b'"op_code":4' in line]
    assert created[0] == 1
    del lines[lost]
    journal.write_bytes(b"".join(lines))
    with pytest.raises(
        ValueError,
        match=r"(trial 0 of '.*' has values|line 2: trial 0 has no) .* lost records; restore it, or",
    ):
        search(small_config(texts, epochs=1), SPACE, tmp_path / "s", **options)
    assert (tmp_path / "s" / "search.json").read_bytes() == summary


@pytest.mark.parametrize(("number", "line", "kind"), [(0, 2, "study 0"), (1, 6, "trial 2"), (3, 6, "trial 2")])
@pytest.mark.parametrize("rest", [0, 30])
def test_a_damaged_record_that_later_ones_need_is_refused(
    journal: Path, number: int, line: int, kind: str, rest: int
) -> None:
    """Without the check, the records of a trial would be those of the one before it."""
    study = open_study(open_journal(journal), "study", None)
    study.tell(2, 0.5)
    lines = [each for each in journal.read_bytes().splitlines() if b'"trial_id":0' not in each]
    lines[number] = lines[number][:rest]
    journal.write_bytes(damaged := b"\n".join(lines) + b"\n")
    where = rf" \(half a record is in line {number + 1}\)" if rest else ""
    with pytest.raises(ValueError, match=rf"journal, line {line}: {kind} has no record that creates it{where}, .*; re"):
        trials(journal)
    assert journal.read_bytes() == damaged


def test_a_full_disk_is_reported_with_the_name_of_the_journal(journal: Path) -> None:
    study = open_study(open_journal(journal), "study", None)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + 20, hard))
    try:
        with pytest.raises(OSError, match=JOURNAL):
            add_trial(study, {"noise.spread": 0.7}, SPACE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert trials(journal) == WHOLE
