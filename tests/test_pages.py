"""README and the site's pages: their code runs, what they point at is there, and every public name has a page."""

import importlib
import inspect
import pkgutil
import posixpath
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from noisin_pyro.cli import main
from noisin_pyro.noise import registry

ROOT = Path(__file__).parents[1]
INVENTORY = ROOT / "docs" / "_build" / "html" / "objects.inv"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "howto").glob("*.md"))]
PACKAGE = ROOT / "noisin_pyro"
SUBPACKAGES = sorted({path.parent for path in PACKAGE.rglob("__init__.py") if path.parent.name != "commands"})
PLACED = ("{toctree}", "{eval-rst}", "{image}", "{figure}", "{include}")


def _code_blocks(page: Path) -> list[tuple[str, str]]:
    """The kind and the content of each."""
    return re.findall(r"^```(\S+)[^\n]*\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def _local_targets(page: Path) -> list[str]:
    """Paths that links and pictures point to."""
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!http)([^)#]+)|^```\{\w+\} (\S+)$", text, re.MULTILINE)
    return ["".join(target) for target in targets]


def _runs(page: Path) -> object:
    """A page whose code is run; pages that train or sample are slow."""
    trains = page.parent.name == "howto" or page.stem in ("training", "inference")
    return pytest.param(page, marks=pytest.mark.slow if trains else ())


@pytest.mark.parametrize("page", [*map(_runs, filter(_code_blocks, PAGES))], ids=lambda path: path.stem)
def test_every_code_block_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one namespace and in order, in an empty folder; commands as from the command line."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))  # a page adds a family
    names: dict[str, Any] = {}
    for kind, block in _code_blocks(page):
        if kind in ("python", "{code-cell}"):
            exec(block, names)
        elif kind == "sh":
            for line in block.splitlines():
                program, *arguments = shlex.split(line)
                assert (program, main(arguments)) == ("noisin", 0), line
        else:
            assert kind in PLACED


@pytest.mark.parametrize("page", [*filter(_local_targets, PAGES)], ids=lambda path: path.stem)
def test_links_and_pictures_are_there(page: Path) -> None:
    for path in _local_targets(page):
        assert path == "python" or path.startswith("_generated/") or (page.parent / path).exists(), path


@pytest.mark.skipif(not INVENTORY.exists(), reason="the site is not built: sphinx-build docs docs/_build/html")
def test_every_public_name_has_a_page() -> None:
    InventoryFile = pytest.importorskip("sphinx.util.inventory").InventoryFile  # of the extra docs
    with INVENTORY.open("rb") as file:
        inventory = InventoryFile.load(file, "", posixpath.join)
    kinds = ("py:module", "py:class", "py:function", "py:exception", "py:data")
    names = [name for kind in kinds for name in inventory.get(kind, {})]
    documented = {id(pkgutil.resolve_name(name)) for name in names if "." in name}
    for subpackage in SUBPACKAGES:
        module = importlib.import_module(".".join(subpackage.relative_to(ROOT).parts))
        for name in getattr(module, "__all__", ()):  # those without are not public
            getattr(module, name)  # imports it, if it is imported at its first use
            assert id(inspect.getattr_static(module, name)) in documented, f"{module.__name__}.{name}"
