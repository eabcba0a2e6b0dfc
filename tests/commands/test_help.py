"""Help texts."""

import inspect

import pytest

from noisin_pyro.cli import main
from noisin_pyro.commands import SUMMARIES, load

from ..field_docs import field_docs


@pytest.mark.parametrize("arguments", ["", *SUMMARIES])
def test_help_fits_in_a_terminal(
    arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*arguments.split(), "--help"])
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80 and "usage:" not in line] == []


@pytest.mark.parametrize("name", [name for name in SUMMARIES if name != "train"])  # its options: tests/test_cli.py
def test_help_explains_every_option(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")  # lines of help end where their paragraph does
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "None)" not in text and "{None" not in text
    docs = field_docs(load(name))
    docs.pop("shared", None)  # the options of `noisin train`
    for field, doc in docs.items():
        assert doc and any(doc in line for line in text.splitlines()), field


@pytest.mark.parametrize("name", SUMMARIES)
def test_summaries_are_first_lines_of_the_subcommands_docstrings(name: str) -> None:
    assert (inspect.getdoc(load(name)) or "").splitlines()[0] == SUMMARIES[name]
