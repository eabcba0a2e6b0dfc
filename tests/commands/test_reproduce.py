"""``noisin reproduce``: rows and their order, errors, and the exit status."""

from pathlib import Path

import pytest

from noisin_pyro.cli import main
from noisin_pyro.reproduction import rows
from noisin_pyro.reproduction.recipes import TABLES


def _listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["reproduce", *arguments, "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len({line.index("paper: ") for line in lines}) == len({line.index("on validation: ") for line in lines}) == 1
    return [line.split()[0] for line in lines]


def test_all_rows_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for table, recipes in TABLES.items():
        assert _listed(capsys, table) == [recipe.row for recipe in recipes()]


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        ("beta none d-beta d", "beta none d-beta d"),
        ("d-b d", "d-bernoulli d-beta d"),
        ("gam g", "gamma gaussian gumbel"),
        ("d d", "d"),
    ],
)
def test_rows_come_in_the_order_given_and_whole_names_go_before_beginnings(
    capsys: pytest.CaptureFixture[str], given: str, rows: str
) -> None:
    assert _listed(capsys, "icml-m", "--rows", *given.split()) == rows.split()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--rows tanh-3", "rows: table2 has none that begins with 'tanh-3', only tanh-1-none"),
        ("--seeds 0", "seeds must be at least 1, got 0"),
        ("--trials 0", "trials must be at least 1, got 0"),
        ("--trial-epochs 0", "--trial-epochs must be at least 1, got 0"),
        ("--minutes 0", "minutes must be a positive number"),
        ("--epochs 0", "epochs must be at least 1"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, message: str
) -> None:
    assert main(["reproduce", "table2", "--folder", str(tmp_path / "r"), *options.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("noisin: ") and message in line
    assert not (tmp_path / "r").exists()


def test_the_exit_status_is_1_if_rows_are_left_or_diverge(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(*arguments: object, **options: object) -> None:
        raise FloatingPointError("not finite")

    monkeypatch.setattr(rows, "train", diverges)
    options = ["--data", str(texts), "--folder", str(tmp_path / "r"), "--matmul-precision", "float32"]
    command = ["reproduce", "zaremba", *options]
    assert main([*command, "--minutes", "1e-9"]) == 1
    assert "rows are left: the same command resumes" in capsys.readouterr().out
    assert main(command) == 1
    assert "zaremba, small, seed 11: not finite; no record is written" in capsys.readouterr().err.splitlines()
