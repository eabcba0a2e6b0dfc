"""Package layout: which way imports run, and that distributions are complete."""

import ast
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "noisin_pyro"
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Each subpackage or module, from the bottom upward, and those below it that it imports.
BELOW = {
    "_lookup": set(),
    "_tables": set(),
    "_files": set(),
    "_diagnostics": set(),
    "plots": {"_diagnostics"},
    "data": {"_files", "_lookup"},
    "noise": {"_lookup"},
    "recurrence": {"noise", "_lookup"},
    "models": {"recurrence", "noise", "_lookup"},
    "inference": {"models", "recurrence", "noise", "data", "_diagnostics", "_tables", "_lookup"},
    "training": {"inference", "models", "recurrence", "noise", "data", "plots", "_tables", "_files", "_lookup"},
    "search": {"training", "inference", "noise", "_tables", "_files", "_lookup"},
    "reproduction": {"search", "training", "recurrence", "noise", "plots", "_tables", "_files", "_lookup"},
    "commands": {
        "reproduction",
        "search",
        "training",
        "inference",
        "models",
        "noise",
        "data",
        "plots",
        "_diagnostics",
        "_tables",
        "_files",
    },
    "cli": {"commands", "training"},
    "__main__": {"cli"},
}
MAX_FILE_LINES, MAX_FUNCTION_LINES = 300, 50


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_module(path): path for path in SOURCES}


def _imports(path: Path) -> Iterator[str]:
    """Full names of all that a file imports; of ``from package import name``, the name if it is a module."""
    here = _module(path) if path.is_relative_to(PACKAGE) else ""
    package = here if path.name == "__init__.py" else here.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                yield f"{source}.{alias.name}" if f"{source}.{alias.name}" in MODULES else source


def _subpackage(module: str) -> str:
    return module.split(".")[1] if module.count(".") else "the top"


def test_imports_run_downward() -> None:
    used: dict[str, set[str]] = {name: set() for name in BELOW}
    for path in SOURCES:
        if (importing := _subpackage(_module(path))) != "the top":
            used[importing] |= {_subpackage(name) for name in _imports(path) if name.split(".")[0] == "noisin_pyro"}
    assert {name: names - {name} for name, names in used.items()} == BELOW
    order = list(BELOW)
    for name, names in BELOW.items():
        assert names <= set(order[: order.index(name)]), name


def test_imports_run_in_no_circle() -> None:
    graph = {module: {name for name in _imports(path) if name in MODULES} for module, path in MODULES.items()}
    list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    assert len(lines) <= MAX_FILE_LINES
    code = {number for number, line in enumerate(lines, 1) if line.strip() and not line.strip().startswith("#")}
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
    for function in functions:
        if ast.get_docstring(function) is not None:
            code -= set(range(function.body[0].lineno, (function.body[0].end_lineno or 0) + 1))
    for function in functions:
        own = code & set(range(function.lineno, (function.end_lineno or 0) + 1))
        assert len(own) <= MAX_FUNCTION_LINES, function.name


def test_links_at_the_root_are_for_readers_only() -> None:
    links = {"models", "inference"}
    for name in links:
        assert (ROOT / name).is_symlink() and (ROOT / name).readlink() == Path("noisin_pyro", name)
    for folder in ("noisin_pyro", "tests", "benchmarks", "notebooks", "docs"):
        paths = list((ROOT / folder).rglob("*.py"))
        assert paths, folder
        for path in paths:
            assert links.isdisjoint(module.split(".")[0] for module in _imports(path)), path


def test_the_wheel_made_from_the_source_distribution_is_complete(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        (entry_points,) = (name for name in packed if name.endswith("entry_points.txt"))
        assert "noisin = noisin_pyro.cli:main" in archive.read(entry_points).decode()
        (path,) = (name for name in packed if name.endswith(".dist-info/METADATA"))
        metadata = Metadata.from_email(archive.read(path), validate=True)  # what a package index would refuse
    assert metadata.description == (ROOT / "README.md").read_text(encoding="utf-8")
    assert {path.relative_to(ROOT).as_posix() for path in SOURCES} <= packed
    assert all(name.startswith(("noisin_pyro/", "noisin_pyro-")) for name in packed)


def test_constraints_pin_every_dependency_within_its_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    for text in chain(project["dependencies"], *project["optional-dependencies"].values()):
        requirement = Requirement(text)
        assert pins[requirement.name.lower()] in requirement.specifier, f"run tools/update_constraints.py for {text}"
