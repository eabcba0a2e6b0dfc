"""``noisin families``: the picture of each noise family."""

from pathlib import Path

import pytest
from matplotlib.image import imread

from noisin_pyro import noise, plots
from noisin_pyro.cli import main
from noisin_pyro.commands import families


def test_the_picture_has_every_family_and_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def watched(panels: list[plots.Panel]) -> object:
        drawn.extend(panels)
        return draw(panels[:2])  # enough for the test

    draw = plots.families
    monkeypatch.setattr(families.plots, "families", watched)
    file = tmp_path / "families.png"
    assert main(["families", "--png", str(file)]) == 0
    assert capsys.readouterr().out.endswith(f"picture of each law: {file}\n")
    assert {(panel.name, form) for panel in drawn for form in panel.forms.split(", ")} == {
        (entry.name, entry.form) for entry in noise.describe()
    }
    assert imread(file).std() > 0.01


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.png"
    file.write_text("mine")
    assert main(["families", "--png", str(file)]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err
    assert main(["families", "--png", str(tmp_path / "nowhere" / "a.png")]) == 2
    assert "nowhere" in capsys.readouterr().err and file.read_text() == "mine"
