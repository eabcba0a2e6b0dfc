"""Notebooks: their scripts run, and the committed notebook is its script with outputs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
# Warning of pyplot without a display; in a notebook, the inline backend shows the picture.
NO_SCREEN = "ignore:FigureCanvasAgg is non-interactive"

each_notebook = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)


@pytest.mark.slow
@each_notebook
def test_the_script_runs_at_its_reduced_size(script: Path, tmp_path: Path) -> None:
    """In a process of its own, from another folder; a warning is an error."""
    if '"jsb"' in script.read_text(encoding="utf-8") and not os.environ.get("NOISIN_DATA"):
        pytest.skip("NOISIN_DATA is not set: no real files")
    environment = os.environ | {"NOISIN_QUICK": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    command = [sys.executable, "-W", "error", "-W", NO_SCREEN, str(script)]
    ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert not ran.stderr


@each_notebook
def test_the_notebook_is_the_script(script: Path) -> None:
    written, committed = jupytext.read(script), nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    cells = [[(cell.cell_type, cell.source) for cell in notebook.cells] for notebook in (written, committed)]
    assert cells[0] == cells[1], "run: python notebooks/execute.py " + script.stem


@each_notebook
def test_the_notebook_has_been_run(script: Path) -> None:
    """From top to bottom and without warnings, and its outputs name no path of the machine that it ran on."""
    notebook = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert all(output.name == "stdout" for output in outputs if output.output_type == "stream")
    texts = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs]
    assert not re.search(r"(^|[\s'\"(=])(/|[A-Z]:\\)\w", "\n".join(texts))


def _local_links(script: Path) -> list[str]:
    prose = [cell.source for cell in jupytext.read(script).cells if cell.cell_type == "markdown"]
    return re.findall(r"\]\((?!http)([^)#]+)", "\n".join(prose))


@pytest.mark.parametrize("script", [*filter(_local_links, SCRIPTS)], ids=lambda path: path.stem)
def test_links_are_there(script: Path) -> None:
    for target in _local_links(script):
        assert (script.parent / target).exists(), target
