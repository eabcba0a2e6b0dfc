"""Start-up: what the command prints without torch, its version, and names that are imported on first use."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import noisin_pyro
from noisin_pyro import training

ROOT = Path(__file__).parents[1]
SLOW = ("torch", "pyro", "numpy", "scipy", "matplotlib", "optuna", "arviz")


def _python(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"]], ids=" ".join)
def test_is_printed_without_slow_imports(arguments: list[str]) -> None:
    program = f"""
import sys
from noisin_pyro.cli import main
try:
    main({arguments!r})
except SystemExit:
    pass
print("imported:", *(name for name in {SLOW!r} if name in sys.modules))
"""
    assert _python("-c", program).splitlines()[-1] == "imported:"


def test_module_is_the_command() -> None:
    assert "--version" in _python("-m", "noisin_pyro", "--help")
    assert _python("-m", "noisin_pyro", "--version") == f"noisin {importlib.metadata.version('noisin_pyro')}\n"


def test_version_is_the_same_everywhere() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    (latest, *_) = re.findall(r"^## (\S+) - \d{4}-\d{2}-\d{2}$", changes, re.MULTILINE)
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert latest == version and f"\nversion: {version}\n" in citation
    assert noisin_pyro.__version__ == importlib.metadata.version("noisin_pyro")


@pytest.mark.parametrize("module", [noisin_pyro, training])
def test_public_names_are_imported_on_first_use(module: ModuleType) -> None:
    names = module.__all__
    assert set(names) <= set(dir(module)) and all(getattr(module, name) is not None for name in names)
    assert not hasattr(module, "no_such_name")
