"""Help texts."""

import pytest

from noisin_pyro import commands
from noisin_pyro.cli import main

from ..field_docs import field_docs


@pytest.mark.parametrize("arguments", ["", "train", *map(str.lower, commands.__all__)])
def test_help_fits_in_a_terminal(
    arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*arguments.split(), "--help"])
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("name", commands.__all__)
def test_help_explains_every_option(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        main([name.lower(), "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "None)" not in text
    words = " ".join(text.replace("│", " ").split())
    docs = field_docs(getattr(commands, name))
    docs.pop("held", None)  # the options of `noisin train`
    for field, doc in docs.items():
        assert doc and doc[:40] in words, field
