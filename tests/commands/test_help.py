"""Help texts."""

import ast
import inspect
from itertools import pairwise

import pytest

from noisin_pyro.cli import main
from noisin_pyro.commands import SUMMARIES, load


@pytest.mark.parametrize("arguments", ["", *SUMMARIES])
def test_help_fits_in_a_terminal(
    arguments: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([*arguments.split(), "--help"])
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("name", [name for name in SUMMARIES if name != "train"])  # its options: tests/test_cli.py
def test_help_explains_every_option(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "None)" not in text
    words = " ".join(text.replace("│", " ").split())
    (command,) = ast.parse(inspect.getsource(load(name))).body
    assert isinstance(command, ast.ClassDef)
    for member, follower in pairwise(command.body):
        if isinstance(member, ast.AnnAssign) and ast.unparse(member.target) != "held":  # the options of another
            assert isinstance(follower, ast.Expr) and isinstance(follower.value, ast.Constant), ast.dump(member)
            assert str(follower.value.value)[:40] in words


@pytest.mark.parametrize("name", SUMMARIES)
def test_summaries_are_first_lines_of_the_subcommands_docstrings(name: str) -> None:
    assert (inspect.getdoc(load(name)) or "").splitlines()[0] == SUMMARIES[name]
