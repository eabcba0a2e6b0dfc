"""What pages include and nobody writes by hand: names from the code, tables from the code and from results/."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from noisin_pyro import noise, plots
from noisin_pyro.commands import Families
from noisin_pyro.recipes import TABLES
from noisin_pyro.reproduction import Record, read_records
from noisin_pyro.reproduction.report import text
from noisin_pyro.tables import markdown as table
from noisin_pyro.training.log import Row
from noisin_pyro.training.log import read as read_log

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
REPRODUCTIONS = {RESULTS / "reproduction": "", RESULTS / "gpu" / "reproduction": ", on a GPU"}  # and how they are told
ROOMS = ["", ".noise", ".inference.guides", ".inference", ".data", ".training", ".models", ".plots", ".recipes"]
ROOMS += [".reproduction"]


def rooms() -> dict[str, list[str]]:
    """The public names of each room, every thing once: in the first room that has it."""
    seen: set[int] = set()
    found: dict[str, list[str]] = {}
    for room in (f"noisin_pyro{suffix}" for suffix in ROOMS):
        module = importlib.import_module(room)
        things = {name: getattr(module, name) for name in module.__all__}
        found[room] = [name for name, it in things.items() if not inspect.ismodule(it) and id(it) not in seen]
        seen |= {id(it) for it in things.values()}
    return found


def write(docs: Path) -> None:
    """Write everything into folders of ``docs``: ``_generated``, and ``notebooks`` as they are committed."""
    shutil.rmtree(docs / "notebooks", ignore_errors=True)
    (docs / "notebooks").mkdir()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text = path.read_text(encoding="utf-8").replace("](../docs/", "](../")
        (docs / "notebooks" / path.name).write_text(text, encoding="utf-8")
    folder = docs / "_generated"
    folder.mkdir(exist_ok=True)
    for make in (noise_table, runs, bounds, speed, tried, reproduction, searches, cost):
        (folder / f"{make.__name__}.md").write_text(make(), encoding="utf-8")
    picture = folder / "families.png"
    picture.unlink(missing_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        Families(png=picture).run()
    plots.learned_spreads(_learned()).savefig(folder / "learned.png")


def noise_table() -> str:
    """A row for each family: its law, the law's options, and what its other forms are."""
    rows = []
    for name in noise.families():
        forms = {entry.form: entry for entry in noise.describe(name)}
        base, times, native = (forms.get(form) for form in ("additive", "multiplicative", "native"))
        assert base is not None
        other = "" if times is None or times.law == base.law else f"h·r, r ~ {times.law}"
        options = ", ".join(f"`{option}={value:g}`" for option, value in base.options.items())
        rows.append([f"`{name}`", base.law, options, other, "" if native is None else native.law])
    return table(["`noise=`", "law of ε, before it is standardised", "options", "multiplicative", "native"], rows)


def runs() -> str:
    """A table for each data set: every run in results/, but for those that have a table of their own."""
    parts: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path in sorted(RESULTS.rglob("result.json"), key=lambda path: path.parent):
        told = json.loads(path.read_text(encoding="utf-8"))
        elsewhere = (path.parents[1] / "table.md").exists() or any(map(path.is_relative_to, REPRODUCTIONS))
        if "data" in told and not elsewhere:
            parts.setdefault(told["data"]["name"], []).append((path.parent, told))
    return "\n".join(f"### {name}\n\n{_runs(found)}" for name, found in parts.items())


def _runs(found: list[tuple[Path, dict[str, Any]]]) -> str:
    music = found[0][1]["data"]["name"] not in ("pydocs", "ptb", "wikitext-2")
    shown, digits = ("nats_per_step", 3) if music else ("perplexity", 1)
    rows = []
    for folder, told in found:
        model, how = told["model"], told["noise"]
        gammas = ", ".join(f"{value:.3f}" for value in told["spreads"].values())
        noise = f"{how['family']} {gammas}{', learned' if how['learn_spread'] else ''}" if gammas else "none"
        numbers = [told["valid"], told["test"], told["test_ensemble"]]
        rows.append(
            [
                folder.relative_to(RESULTS).as_posix(),
                f"{model['num_layers']}\u00a0×\u00a0{model['hidden_size']} {model['cell']}",
                noise,
                f"{told['best_epoch']} of {told['epochs']}",
                *("–" if number is None else f"{number[shown]:.{digits}f}" for number in numbers),
            ]
        )
    unit = "nats per step" if music else "perplexity"
    heads = ["run", "layers", "noise, γ", "epoch", f"validation, {unit}", "test, noise off", "test, ensemble"]
    return table(heads, rows)


def bounds() -> str:
    """How far each guide's bound is from log p(x), where that is known."""
    told = json.loads((RESULTS / "bounds" / "result.json").read_text(encoding="utf-8"))
    rows = [[name, f"{found['gap']:.4f}", f"{found['error']:.4f}"] for name, found in told["bounds"].items()]
    return table(["guide", "log p(x) − bound, nats per step", "standard error"], rows)


def speed() -> str:
    """The tables of ``benchmarks/speed.py``, for each kind of device that it has run on."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((RESULTS / "speed").glob("*/table.md")))


TRIED = [
    (
        "tanh, additive: fused kernel, with earlier noise as an input",
        "1.5: one more matrix product",
        "tanh",
        "additive-fused",
    ),
    ("tanh, additive: scan", "1.0: the kernel sums its gradients step by step", "tanh", "additive-scan"),
    ("tanh, multiplicative: scan", "1.0", "tanh", "multiplicative-scan"),
    (
        "LSTM, additive: fused kernel, with earlier noise as an input",
        "1.5: one more matrix product",
        "lstm",
        "additive-fused",
    ),
    ("LSTM, additive: scan", "1.3: more small operations, but no further matrix product", "lstm", "additive-scan"),
    ("LSTM, multiplicative: scan", "1.3", "lstm", "multiplicative-scan"),
]
"""Variants of a layer: title, prediction relative to torch's layer, and the entry that measures it."""


def tried() -> str:
    """Predicted and measured costs of variants relative to torch's own layer, softmax or step, on a CPU."""
    rows = []
    for what, predicted, cell, name in TRIED:
        loop = name.partition("-")[0] + "-loop"
        measured, baseline = (_ratio(f"recurrence-{cell}", contestant) for contestant in (name, loop))
        rows.append([what, baseline, predicted, measured])
    for size, words in (("table2", "10,000 words"), ("table3", "33,278 words")):
        for name, how, predicted in (
            ("softmax", "logits overwritten by their gradient, products by oneDNN", "0.5: mostly matrix products"),
            ("softmax-bfloat16", "the same, products in bfloat16", "0.3"),
        ):
            rows.append([f"softmax over {words}: {how}", "1.00", predicted, _ratio(f"softmax-{size}", name)])
    for cell, predicted in (("tanh", "0.8"), ("lstm", "1.2")):
        for form in ("additive", "multiplicative"):
            what = f"{cell if cell == 'tanh' else 'LSTM'}, {form}: products in bfloat16"
            rows.append([what, "1.00", predicted, _ratio(f"recurrence-{cell}", f"{form}-bfloat16")])
    medium, predicted = (
        "LSTM 2 × 650, whole step: additive, products in bfloat16",
        "0.49: all products at twice the rate",
    )
    rows.append([medium, "1.00", predicted, _ratio("medium", "ours-bfloat16")])
    return table(["variant", "baseline", "predicted", "measured"], rows)


def _ratio(comparison: str, name: str) -> str:
    path = RESULTS / "speed" / "cpu" / f"{comparison}.json"
    return f"{json.loads(path.read_text(encoding='utf-8'))['entries'][name]['ratio']['median']:.2f}"


def reproduction() -> str:
    """The papers' tables as they have been run."""
    return "\n".join(text(records).replace("\n", f"{where}\n", 1) for where, records in _tables())


def searches() -> str:
    """What was chosen on validation, and among what: every trial of every row."""
    rows = []
    for row, best, trial in _trials():
        number = trial["valid_perplexity"]
        shown = trial["message"] or trial["state"] if number is None else f"{number:.1f}"
        rows.append([row, _values(trial), str(trial["epochs"]), shown, "chosen" if trial["number"] == best else ""])
    return table(["row", "candidate", "epochs", "best validation perplexity", ""], rows)


def _trials() -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Of every search: its row's name, the number of the chosen trial, and each trial."""
    for folder, where in REPRODUCTIONS.items():
        for path in sorted(folder.rglob("search.json")):
            told = json.loads(path.read_text(encoding="utf-8"))
            for trial in told["of_each_trial"]:
                yield "/".join(path.parts[-4:-2]) + where, told["best"], trial


def _values(trial: dict[str, Any]) -> str:
    return ", ".join(f"{name.partition('.')[2].replace('_', ' ')} {v}" for name, v in trial["values"].items())


METHODS = {
    "plain": "none (PyTorch's own network)",
    "ours-noise-free": "none, here",
    "ours": "NOISIN, additive",
    "ours-multiplicative": "NOISIN, multiplicative",
    "ours-learned": "NOISIN, γ learned",
    "ours-dropout": "variational dropout, here",
    "loop": "noise in a loop in plain PyTorch",
    "variational-dropout": "variational dropout in plain PyTorch",
}


def _learned() -> dict[str, list[Row]]:
    """By its floor, the log of every run with seed 0 that learns γ, of candidates too."""
    found = {}
    for folder, where in REPRODUCTIONS.items():
        for path in sorted(folder.rglob("log.csv")):
            told = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
            if told["noise"]["learn_spread"] and told["run"]["seed"] == 0:
                name, row = path.relative_to(folder).parts[:2]
                row, floor = name if row == "noisin" else row, told["noise"]["spread_floor"]
                found[f"{row.removesuffix('-noisin-learned')}, floor {floor}{where}"] = read_log(path)
    return found


EPOCH = 1328  # steps: 929,589 tokens in 20 columns and windows of 35


def cost() -> str:
    """What each method costs beside the plain network, and an epoch of it, at table 2 with one layer."""
    told = json.loads((RESULTS / "speed" / "cpu" / "table2-1layer.json").read_text(encoding="utf-8"))["entries"]
    rows = []
    for name, title in METHODS.items():
        if name not in told:
            continue  # measured before it was a contestant
        ratio, milliseconds = told[name]["ratio"], told[name]["milliseconds"]["median"]
        range_ = "" if name == "plain" else f" ({ratio['low']:.2f} to {ratio['high']:.2f})"
        rows.append([title, f"{milliseconds * EPOCH / 1000:.0f}", f"{ratio['median']:.2f}{range_}"])
    return table(["method", "training for an epoch, seconds", "beside the plain network"], rows)


def _tables() -> list[tuple[str, list[Record]]]:
    """The records of each table that has any, and how it is told where they were made."""
    found = [(where, read_records(folder, name)) for name in TABLES for folder, where in REPRODUCTIONS.items()]
    return [(where, records) for where, records in found if records]
