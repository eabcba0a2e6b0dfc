"""matplotlib is imported only to draw, and its backend does not matter."""

import os
import subprocess
import sys

SCRIPT = """
import sys
import noisin_pyro.plots
assert "matplotlib" not in sys.modules
noisin_pyro.plots.spreads([{"epoch": 1, "gamma_1": 0.3}]).savefig(sys.stdout.buffer, format="png")
assert "matplotlib.pyplot" not in sys.modules
"""


def test_matplotlib_is_imported_to_draw_and_no_backend_is_needed() -> None:
    environment = os.environ | {"MPLBACKEND": "unknown"}
    result = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, timeout=300)
    assert result.returncode == 0, result.stderr.decode()
    assert result.stdout.startswith(b"\x89PNG")
