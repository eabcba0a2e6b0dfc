"""Configuration of the site: ``sphinx-build -W --keep-going -n docs docs/_build/html``.

Neither the build nor the pages need a network.
"""

import dataclasses
import functools
import importlib
import inspect
import os
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, get_type_hints

import pandas
from docutils import nodes
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

sys.path.insert(0, str(Path(__file__).parent))

import generated  # beside this file

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads of the pages' small networks would wait for each other

project, author = "noisin_pyro", "The noisin_pyro developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
extensions += ["mathml"]
exclude_patterns = ["_build", "_generated"]
templates_path = ["_templates"]
html_theme, html_title, html_copy_source = "furo", "noisin_pyro", False
html_static_path, html_css_files = ["_static"], ["site.css"]
html_theme_options, html_show_copyright = {"navigation_with_keys": True}, False
html_math_renderer = "mathml"

# Each page's cells run in a kernel of their own; an error in a cell fails the build.
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode, nb_execution_raise_on_error, nb_execution_timeout = "auto", True, 600
nb_execution_in_temp, nb_merge_streams, nb_output_stderr = True, True, "remove"
nb_execution_excludepatterns = ["notebooks/*"]  # committed with their outputs

# Every name in a package's __all__ has a page.
PUBLIC_NAMES = generated.public_names()
autosummary_context = {"public_names": PUBLIC_NAMES}
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True

# Without a page here: types of other packages, whose inventories would have to be fetched, and private modules' names.
nitpick_ignore_regex = [(r"py:.*", r"(?!noisin_pyro\b)\w+\..*"), (r"py:.*", r"noisin_pyro\.\w+\.\w+\..*")]
nitpick_ignore = [("py:exc", "Interrupted")]


def find_by_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Link a docstring's short name (``:class:`NoisyRNN```) to its page, in whichever package that is."""
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"].lstrip("~.").rpartition(".")[2]
    packages = [package for package, names in PUBLIC_NAMES.items() if name in names]
    if len(packages) != 1:
        return None
    python = env.get_domain("py")
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", f"{packages[0]}.{name}", node, content)


def prepare(app: Sphinx, what: str, name: str, it: object, options: object, lines: list[str]) -> None:
    """Change a docstring's lines to what napoleon expects."""
    if what == "data" and isinstance(it, Collection):  # a constant has no docstring but its type's
        lines[:] = [", ".join(f"``{each!r}``" for each in it)]
    elif what in ("attribute", "property"):  # an empty comment, or words before a colon would be taken for a type
        lines[:0] = ["..", ""]
    # "mean, spread: …" documents two arguments, not one of type "mean,"
    lines[:] = [re.sub(r"^ +\w+(, \w+)+: ", lambda names: names[0].replace(", ", ","), line) for line in lines]


def link_notebooks(app: Sphinx, page: str, source: list[str]) -> None:
    """Point links to the repository's ``notebooks`` at their copies inside ``docs``."""
    source[0] = re.sub(r"\]\(\.\./((\.\./)*notebooks/)", r"](\1", source[0])


def run_commands(app: Sphinx, page: str, source: list[str]) -> None:
    """Run the commands of a page that has cells, which need their files, and show below them what they print."""
    if not source[0].startswith("---\nfile_format: mystnb"):
        return
    run = "from shlex import split as _split\nfrom noisin_pyro.cli import main as _main\n"
    run += "for _line in {!r}.splitlines():\n    assert _main(_split(_line)[1:]) == 0, _line\n"
    cell = "```{{code-cell}} python\n:tags: [remove-input]\n" + run + "```\n"
    shell = re.compile(r"^```sh\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
    source[0] = shell.sub(lambda block: block[0] + "\n" + cell.format(block[1]), source[0])


def plain_types(it: Any) -> None:
    """Replace the annotations of a class's arguments and fields by their types, without the command line's metadata."""
    is_tuple = issubclass(it, tuple)
    has_fields = is_tuple or dataclasses.is_dataclass(it)
    maker = it.__new__ if is_tuple else it.__init__
    if not inspect.isfunction(maker):
        return
    for holder in (maker, it) if has_fields else (maker,):
        holder.__annotations__ = get_type_hints(it if has_fields else maker)
    if hasattr(it, "__signature__"):  # Pyro's distributions store their signature
        it.__signature__ = inspect.signature(functools.partial(maker, None))


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", lambda app: generated.write(Path(app.srcdir)))
    app.connect("source-read", link_notebooks)
    app.connect("source-read", run_commands)
    app.connect("missing-reference", find_by_name)
    app.connect("autodoc-process-docstring", prepare, priority=400)  # before napoleon
    public = (
        getattr(importlib.import_module(package), name) for package, names in PUBLIC_NAMES.items() for name in names
    )
    for it in filter(inspect.isclass, public):
        plain_types(it)
    for name, module in sys.modules.items():
        if name.startswith(("noisin_pyro.plots.", "noisin_pyro.data.")):  # these import types for type checkers only
            vars(module).update(Axes=Axes, Figure=Figure, pd=pandas)
