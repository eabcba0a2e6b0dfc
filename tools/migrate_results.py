"""Bring results on disk to the names of this version: ``python tools/migrate_results.py [FOLDER ...]``.

By default it migrates ``results/``. Running it again changes nothing. To rename a key, append a :class:`Renaming` to
``RENAMINGS``, in the order in which the renamings were made.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KINDS = {
    "config": "config.json",
    "result": "result.json",
    "search": "search.json",
    "journal": "optuna.journal",
    "record": "seed-*.json",
    "speed": "speed/*/*.json",
}
"""Each kind of file, and the pattern that its path ends with."""

Content = dict[str, Any]


@dataclass(frozen=True)
class Renaming:
    """One renaming in files of some kinds.

    Attributes:
        reason: what is renamed, in words.
        kinds: keys of ``KINDS``.
        apply: changes the content of a file in place. It leaves content that already has the new name as it is. The
            content of a journal is one of its lines.
    """

    reason: str
    kinds: tuple[str, ...]
    apply: Callable[[Content], None]


def key(old: str, new: str, *within: str) -> Callable[[Content], None]:
    """Rename a key of the object that ``within`` leads to, also as the first part of dotted names.

    Args:
        within: keys from the outside in; ``"*"`` stands for every key or index.
    """

    def renamed(name: str) -> str:
        return new + name.removeprefix(old) if name == old or name.startswith(f"{old}.") else name

    def apply(content: Content) -> None:
        for holder in _at(content, within):
            if isinstance(holder, dict):
                items = [(renamed(name), value) for name, value in holder.items()]
                holder.clear()  # filled again, so that the order of keys stays
                holder.update(items)

    return apply


def value(old: Any, new: Any, name: str, *within: str) -> Callable[[Content], None]:
    """Replace one value of the key ``name`` in the object that ``within`` leads to."""

    def apply(content: Content) -> None:
        for holder in _at(content, within):
            if isinstance(holder, dict) and holder.get(name) == old:
                holder[name] = new

    return apply


def option(old: str, new: str) -> Callable[[Content], None]:
    """Rename an option, ``group.field``, in a configuration or in the configuration that a file holds."""
    (group, old_field), (_, new_field) = old.split("."), new.split(".")

    def apply(content: Content) -> None:
        for within in ((), ("config",)):
            key(old_field, new_field, *within, group)(content)
        for within in (("space",), ("of_each_trial", "*", "values"), ("chosen",)):
            key(old, new, *within)(content)

    return apply


def group(old: str, new: str) -> Callable[[Content], None]:
    """Rename a group of options."""

    def apply(content: Content) -> None:
        for within in ((), ("config",), ("space",), ("of_each_trial", "*", "values"), ("chosen",)):
            key(old, new, *within)(content)

    return apply


def backend(content: Content) -> None:
    """Rename the backend ``kernel``."""
    for within in ((), ("config",)):
        value("kernel", "fused", "backend", *within, "run")(content)


def configuration_of_0_1(content: Content) -> None:
    """Complete configurations that were written before a group or a field was there."""
    for holder in (content, content.get("config", {})):
        if {"data", "model", "noise"} <= holder.keys():
            holder.setdefault(
                "inference",
                {"guide": "prior", "guide_covariance": None, "guide_hidden_size": None, "kl_annealing": None},
            )
            holder["model"].pop("softmax_products", None)  # results/ptb: these runs were computed in float32


def journal(content: Content) -> None:
    """Rename searched options in a line of Optuna's journal."""
    for name in ("params", "distributions"):
        for old, new in (
            ("optimisation", "optimization"), ("model.products", "model.matmul_precision"),
            ("run.engine", "run.backend"), ("noise.family", "noise.noise"),
            ("optimization.particles", "optimization.num_particles"),
            ("inference.covariance", "inference.guide_covariance"),
            ("inference.hidden_size", "inference.guide_hidden_size"),
        ):  # fmt: skip
            key(old, new, name)(content)


OPTIONS = ("config", "result", "search", "record")
RENAMINGS = [
    Renaming("settings that a paper does not specify", ("record",), key("unsaid", "unspecified")),
    Renaming("American spelling", OPTIONS, group("optimisation", "optimization")),
    Renaming("the argument of NoisyRNN", OPTIONS, option("model.products", "model.matmul_precision")),
    Renaming("the argument of NoisyRNN", OPTIONS, option("run.engine", "run.backend")),
    Renaming("the argument of NoisyRNN", OPTIONS, backend),
    Renaming("the argument of NoisyRNN", OPTIONS, option("noise.family", "noise.noise")),
    Renaming(
        "the argument of PriorAsGuide_ELBO", OPTIONS, option("optimization.particles", "optimization.num_particles")
    ),
    Renaming("the command's option", OPTIONS, option("inference.covariance", "inference.guide_covariance")),
    Renaming("the command's option", OPTIONS, option("inference.hidden_size", "inference.guide_hidden_size")),
    Renaming("configurations of version 0.1", OPTIONS, configuration_of_0_1),
    Renaming("options that a search chooses", ("journal",), journal),
]
"""Every renaming since version 0.1, oldest first."""


def migrate(folder: Path) -> list[Path]:
    """Apply every renaming to every file in a folder; returns the files that have changed."""
    changed = []
    for path in sorted(folder.rglob("*")):
        for kind, pattern in KINDS.items():
            if path.match(pattern) and path.is_file() and _migrate_file(path, kind):
                changed.append(path)
    return changed


def _migrate_file(path: Path, kind: str) -> bool:
    """Apply the renamings of a kind to a file; returns whether it has changed."""
    renamings = [renaming for renaming in RENAMINGS if kind in renaming.kinds]
    text = path.read_text(encoding="utf-8")
    parts = text.splitlines() if kind == "journal" else [text]
    contents = [json.loads(part) for part in parts]
    before = json.dumps(contents)
    for content in contents:
        for renaming in renamings:
            renaming.apply(content)
    if json.dumps(contents) == before:
        return False
    if kind == "journal":
        migrated = "".join(json.dumps(content, separators=(",", ":")) + "\n" for content in contents)
    else:
        migrated = json.dumps(contents[0], indent=2) + "\n"
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(migrated, encoding="utf-8")
    os.replace(temporary, path)
    return True


def _at(content: Any, within: tuple[str, ...]) -> Iterator[Any]:
    """What the keys lead to, if all are there."""
    if not within:
        yield content
        return
    first, *rest = within
    if isinstance(content, list):
        values = content if first == "*" else []
    elif isinstance(content, dict):
        values = content.values() if first == "*" else [content[first]] if first in content else []
    else:
        values = []
    for inner in values:
        yield from _at(inner, tuple(rest))


def main() -> None:
    parser = argparse.ArgumentParser(description="Bring results on disk to the names of this version.")
    parser.add_argument("folders", metavar="FOLDER", nargs="*", type=Path, default=[ROOT / "results"])
    for folder in parser.parse_args().folders:
        for path in migrate(folder):
            print(path)


if __name__ == "__main__":
    main()
