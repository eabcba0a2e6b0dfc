"""matplotlib is imported only to draw, and its backend does not matter."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import noisin_pyro.plots
assert "matplotlib" not in sys.modules
noisin_pyro.plots.spreads([{"epoch": 1, "gamma_1": 0.3}]).savefig(sys.stdout.buffer, format="png")
assert "matplotlib.pyplot" not in sys.modules
"""


COMMAND = """
from noisin_pyro.cli import main
from noisin_pyro.inference import arviz
assert main(["families"]) == 0
arviz.load()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "backend",
    ["unknown", *(pytest.param(each, marks=pytest.mark.slow) for each in ("module://nowhere.backend_inline", ""))],
)
def test_the_command_ignores_the_backend_of_a_notebook(backend: str) -> None:
    """ArviZ, which scores by importance need, imports pyplot."""
    environment = os.environ | {"MPLBACKEND": backend}
    result = subprocess.run([sys.executable, "-c", COMMAND], env=environment, capture_output=True, timeout=300)
    assert result.returncode == 0, result.stderr.decode()


def test_matplotlib_is_imported_to_draw_and_no_backend_is_needed() -> None:
    environment = os.environ | {"MPLBACKEND": "unknown"}
    result = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, timeout=300)
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout.startswith(b"\x89PNG")
