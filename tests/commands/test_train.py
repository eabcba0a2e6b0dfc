"""``noisin train --resume``."""

import shutil
from pathlib import Path

import pytest

from noisin_pyro.cli import main

from .malformed import contents


@pytest.mark.parametrize("options", [[], ["--epochs", "2"]], ids=str)
@pytest.mark.parametrize(
    ("kind", "file"),
    [("run", "data.json"), ("run", "deterministic/data.json"), ("music", "data.json"), ("counts", "data.json")],
)
def test_a_damaged_description_of_the_data_changes_nothing(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    kind: str,
    file: str,
    options: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = shutil.copytree(request.getfixturevalue(kind), tmp_path / "run")
    (folder / file).write_bytes((folder / file).read_bytes()[:-5])
    before = contents(folder)
    assert main(["train", "--resume", str(folder), *options]) == 2
    assert f"{file} is damaged" in capsys.readouterr().err.splitlines()[-1]
    assert contents(folder) == before
