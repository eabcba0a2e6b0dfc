"""A run belongs to its data: whatever reads or resumes it refuses other data."""

import json
import os
import platform
import signal
from pathlib import Path

import pytest
import torch

from noisin_pyro.cli import main
from noisin_pyro.data import Corpus, Sequences, Vocabulary, load
from noisin_pyro.training.rundir.layout import FINGERPRINT, fingerprint

from ...hooks import AfterStep

Texts = tuple[Path, Path, Path]
SMALL = "--batch-size 4 --window 10 --hidden-size 4 --epochs 1 --ensemble-samples 0 --no-twin"


RESULTS = Path(__file__).parents[3] / "results"


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("ptb", "ptb/none"),
        ("wikitext-2", "reproduction-0.1/table3/none/seed-0"),
        ("jsb", "chorales/gaussian"),
        ("pydocs", "pydocs"),
    ],
)
def test_published_data_are_read_as_the_recorded_runs_read_them(name: str, run: str) -> None:
    recorded = json.loads((RESULTS / run / "config.json").read_text())
    if name == "pydocs" and recorded["versions"]["python"] != platform.python_version():
        pytest.skip("another version of Python has another text")
    if name != "pydocs" and not os.environ.get("NOISIN_DATA"):
        pytest.skip("NOISIN_DATA is not set: no real files")
    assert fingerprint(load(name))[FINGERPRINT] == recorded[FINGERPRINT]


def _text(words: str = "a b", **parts: list[int]) -> Corpus:
    tokens = {part: torch.tensor(parts.get(part, [0, 1, 2])) for part in ("train", "valid", "test")}
    return Corpus("text", **tokens, vocabulary=Vocabulary(["<eos>", *words.split()]))


def _music(last: int) -> Corpus:
    chords = torch.zeros(2, 3, 4)
    part = Sequences(chords, chords, torch.tensor([3, last]))
    return Corpus("music", part, part, part, vocabulary=None)


def test_a_single_word_token_or_length_changes_the_fingerprint() -> None:
    corpora = [
        _text(), _text("b a"), _text("a bb"), _text(train=[0, 1, 1]), _text(train=[0, 1, 2, 0], valid=[1, 2]),
        _text(test=[0, 2, 1]), _music(3), _music(2),
    ]  # fmt: skip
    assert len({fingerprint(corpus)[FINGERPRINT] for corpus in corpora}) == len(corpora)
    assert fingerprint(_text()) == fingerprint(_text()) and fingerprint(_music(2)) == fingerprint(_music(2))


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_text_that_changed_is_refused_by_every_command(
    texts: Texts, tmp_path: Path, part: int, capsys: pytest.CaptureFixture[str], after_step: AfterStep
) -> None:
    run, stopped = tmp_path / "run", tmp_path / "stopped"
    options = ["--files", *map(str, texts), *SMALL.split()]
    assert main(["train", *options, "--folder", str(run)]) == 0
    after_step(1, lambda: signal.raise_signal(signal.SIGTERM))
    assert main(["train", *options, "--folder", str(stopped)]) == 143
    whole = texts[part].read_text()
    texts[part].write_text(whole.replace("one two three", "one three two", 1))  # the same words as often
    before = {path: path.read_bytes() for folder in (run, stopped) for path in folder.iterdir()}
    assert main(["generate", str(run)]) == 0  # the vocabulary is the run's own
    commands = [["evaluate", run], ["train", "--resume", run], ["train", "--resume", stopped]]
    for command in commands:
        capsys.readouterr()
        assert main([*map(str, command)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "the data (train) are not those that the run in" in line and "restore them" in line
    assert {path: path.read_bytes() for folder in (run, stopped) for path in folder.iterdir()} == before
    texts[part].write_text(whole)
    for command in commands:
        assert main([*map(str, command)]) == 0


def test_a_run_without_a_fingerprint_is_read(texts: Texts, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["train", "--files", *map(str, texts), *SMALL.split(), "--folder", str(run)]) == 0
    settings = json.loads((run / "config.json").read_text())
    assert json.loads((run / "result.json").read_text())[FINGERPRINT] == settings.pop(FINGERPRINT)
    (run / "config.json").write_text(json.dumps(settings))
    assert main(["evaluate", str(run)]) == main(["train", "--resume", str(run)]) == 0


@pytest.mark.parametrize("named", ["--data", "--files"])
def test_a_relative_path_is_resolved_from_another_folder_and_named_if_missing(
    texts: Texts, tmp_path: Path, named: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    home = tmp_path.name
    names = [home] if named == "--data" else [f"{home}/{path.name}" for path in texts]
    assert main(["train", named, *names, *SMALL.split(), "--folder", str(tmp_path / "run")]) == 0
    monkeypatch.chdir("/")
    for command in (["train", "--resume"], ["evaluate"]):
        assert main([*command, str(tmp_path / "run")]) == 0
    texts[0].unlink()
    for command in (["train", "--resume"], ["evaluate"]):
        capsys.readouterr()
        assert main([*command, str(tmp_path / "run")]) == 2
        assert names[0] in capsys.readouterr().err
