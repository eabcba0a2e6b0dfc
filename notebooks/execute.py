"""Execute the notebooks from their scripts: python notebooks/execute.py [NAME ...]. It needs no network."""

import shutil
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "notebooks"


def execute(script: Path) -> None:
    """Run the script's cells in a kernel of its own, and write the notebook with its outputs beside it.

    Pictures and numbers that it saves in its working folder go to ``results/notebooks/``.
    """
    notebook = jupytext.read(script)
    for index, cell in enumerate(notebook.cells):
        cell["id"] = str(index)  # otherwise random
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            timeout=None,
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": folder}},
            extra_arguments=["--log-level=ERROR"],  # its warnings would appear in the first cell
        ).execute()
        for path in (path for path in Path(folder).iterdir() if path.suffix in (".png", ".json")):
            (RESULTS / script.stem).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, RESULTS / script.stem)
    notebook.metadata["language_info"] = {"name": "python"}  # without the kernel's version
    nbformat.write(notebook, script.with_suffix(".ipynb"))


if __name__ == "__main__":
    for script in sorted(HERE.glob("[0-9]*.py")):
        if not sys.argv[1:] or script.stem in sys.argv[1:]:
            print(script.stem, flush=True)
            execute(script)
