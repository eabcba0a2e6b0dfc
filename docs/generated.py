"""Generates parts of the site: lists of public names, and tables and figures from the code and ``results/``."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from noisin_pyro import noise, plots
from noisin_pyro._tables import markdown as table
from noisin_pyro.commands.families import Families
from noisin_pyro.reproduction import Record, read_records
from noisin_pyro.reproduction.recipe import FIRST_SEED
from noisin_pyro.reproduction.recipes import TABLES
from noisin_pyro.reproduction.report import TITLES, body, text
from noisin_pyro.reproduction.studies import BASELINES
from noisin_pyro.training.rundir.metrics_log import Row
from noisin_pyro.training.rundir.metrics_log import read as read_log

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))
from tests.conformance import layer_contract  # noqa: E402, the table's rows are those that tests run

RESULTS = ROOT / "results"
REPRODUCTIONS = {
    RESULTS / "reproduction": "",
    RESULTS / "gpu" / "reproduction": ", on a GPU",
}  # folder of records: suffix of its tables' titles
EARLIER = RESULTS / "reproduction-0.1"
MUSIC = RESULTS / "music"
PACKAGES = ["", ".noise", ".inference.guides", ".inference", ".data", ".training", ".models", ".plots"]
PACKAGES += [".search", ".reproduction"]


def public_names() -> dict[str, list[str]]:
    """The public names of each package. An object that several packages export is listed under the first of them."""
    seen: set[int] = set()
    names: dict[str, list[str]] = {}
    for package in (f"noisin_pyro{suffix}" for suffix in PACKAGES):
        module = importlib.import_module(package)
        objects = {name: getattr(module, name) for name in module.__all__}
        names[package] = [name for name, it in objects.items() if not inspect.ismodule(it) and id(it) not in seen]
        seen |= {id(it) for it in objects.values()}
    return names


def write(docs: Path) -> None:
    """Write tables and figures to ``docs/_generated``, and copy the committed notebooks to ``docs/notebooks``."""
    shutil.rmtree(docs / "notebooks", ignore_errors=True)
    (docs / "notebooks").mkdir()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text = path.read_text(encoding="utf-8").replace("](../docs/", "](../")
        (docs / "notebooks" / path.name).write_text(text, encoding="utf-8")
    folder = docs / "_generated"
    folder.mkdir(exist_ok=True)
    layers = (layer_calls, layer_construction)
    results = (runs, bounds, speed, tried, reproduction, music, cost, output_noise, filtering_gap, filtering_step)
    for make in (noise_table, *layers, *results):
        (folder / f"{make.__name__}.md").write_text(make(), encoding="utf-8")
    (folder / "trials.md").write_text(trials(REPRODUCTIONS), encoding="utf-8")
    (folder / "trials-0.1.md").write_text(trials({EARLIER: ""}), encoding="utf-8")
    (folder / "reproduction-0.1.md").write_text(earlier(), encoding="utf-8")
    picture = folder / "families.png"
    picture.unlink(missing_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        Families(png=picture).run()
    plots.learned_spreads(_learned()).savefig(folder / "learned.png")


def noise_table() -> str:
    """A table of the families of noise: distribution, options and forms of each."""
    rows = []
    for name in noise.families():
        forms = {entry.form: entry for entry in noise.describe(name)}
        base, times, native = (forms.get(form) for form in ("additive", "multiplicative", "native"))
        assert base is not None
        other = "" if times is None or times.law == base.law else f"h·r, r ~ {times.law}"
        options = ", ".join(f"`{option}={value:g}`" for option, value in base.options.items())
        rows.append([f"`{name}`", base.law, options, other, "" if native is None else native.law])
    return table(["`noise=`", "distribution of ε before standardization", "options", "multiplicative", "native"], rows)


def layer_calls() -> str:
    """What torch's layers and ``NoisyRNN`` accept in a call."""
    return _layers("call", layer_contract.CALLS)


def layer_construction() -> str:
    """What torch's layers and ``NoisyRNN`` accept at construction."""
    return _layers("argument", layer_contract.CONSTRUCTION)


def _layers(what: str, rows: Sequence[layer_contract.Row]) -> str:
    return table([what, "torch's layers", "`NoisyRNN`", ""], [row.as_cells() for row in rows])


def runs() -> str:
    """A table for each data set, with the runs in ``results/`` that are in no other table."""
    by_data: dict[str, list[tuple[Path, dict[str, Any]]]] = {}
    for path in sorted(RESULTS.rglob("result.json"), key=lambda path: path.parent):
        result = json.loads(path.read_text(encoding="utf-8"))
        others = (*REPRODUCTIONS, EARLIER, MUSIC)
        elsewhere = (path.parents[1] / "table.md").exists() or any(map(path.is_relative_to, others))
        if "data" in result and not elsewhere:
            by_data.setdefault(_title(result["data"]), []).append((path.parent, result))
    return "\n".join(f"### {name}\n\n{_runs(results)}" for name, results in by_data.items())


def _title(data: dict[str, Any]) -> str:
    """The name of the data set and, for a text, the number of columns in which its held-out parts were read."""
    if data["name"] not in ("pydocs", "ptb", "wikitext-2"):
        return data["name"]
    columns = data.get("eval_batch_size") or data["batch_size"]  # runs of version 0.1 have no eval_batch_size
    return f"{data['name']}, read in {columns} columns"


def _runs(results: list[tuple[Path, dict[str, Any]]]) -> str:
    music = results[0][1]["data"]["name"] not in ("pydocs", "ptb", "wikitext-2")
    shown, digits = ("nats_per_step", 3) if music else ("perplexity", 1)
    rows = []
    for folder, result in results:
        model, options = result["model"], result["noise"]
        gammas = ", ".join(f"{value:.3f}" for value in result["spreads"].values())
        noise = f"{options['noise']} {gammas}{', learned' if options['learn_spread'] else ''}" if gammas else "none"
        numbers = [result["valid"], result["test"], result["test_ensemble"]]
        rows.append(
            [
                folder.relative_to(RESULTS).as_posix(),
                f"{model['num_layers']}\u00a0×\u00a0{model['hidden_size']} {model['cell']}",
                noise,
                f"{result['best_epoch']} of {result['epochs']}",
                *("–" if number is None else f"{number[shown]:.{digits}f}" for number in numbers),
            ]
        )
    unit = "nats per step" if music else "perplexity"
    heads = ["run", "layers", "noise, γ", "epoch", f"validation, {unit}", "test, noise off", "test, ensemble"]
    return table(heads, rows)


def bounds() -> str:
    """The gap between log p(x) and each guide's bound, in models with known log p(x)."""
    result = json.loads((RESULTS / "bounds" / "result.json").read_text(encoding="utf-8"))
    rows = [[name, f"{bound['gap']:.4f}", f"{bound['error']:.4f}"] for name, bound in result["bounds"].items()]
    return table(["guide", "log p(x) − bound, nats per step", "standard error"], rows)


def speed() -> str:
    """The tables of ``benchmarks/speed.py``, one for each device."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((RESULTS / "speed").glob("*/table.md")))


TRIED = [
    (
        "tanh, additive: fused kernel, with earlier noise as an input",
        "1.5: one additional matrix product",
        "tanh",
        "additive-fused",
    ),
    ("tanh, additive: scan", "1.0: the kernel sums its gradients step by step", "tanh", "additive-scan"),
    ("tanh, multiplicative: scan", "1.0", "tanh", "multiplicative-scan"),
    (
        "LSTM, additive: fused kernel, with earlier noise as an input",
        "1.5: one additional matrix product",
        "lstm",
        "additive-fused",
    ),
    ("LSTM, additive: scan", "1.3: more small operations, but no additional matrix product", "lstm", "additive-scan"),
    ("LSTM, multiplicative: scan", "1.3", "lstm", "multiplicative-scan"),
]
"""Variants of a layer: title, predicted cost relative to torch's layer, cell, and the benchmark's entry."""


def tried() -> str:
    """Predicted and measured costs of variants on a CPU, relative to torch's layer, softmax or training step."""
    rows = []
    for what, predicted, cell, name in TRIED:
        loop = name.partition("-")[0] + "-loop"
        measured, baseline = (_ratio(f"recurrence-{cell}", contestant) for contestant in (name, loop))
        rows.append([what, baseline, predicted, measured])
    for size, words in (("table2", "10,000 words"), ("table3", "33,278 words")):
        for name, method, predicted in (
            ("softmax", "logits overwritten by their gradient, products by oneDNN", "0.5: mostly matrix products"),
            ("softmax-bfloat16", "the same, products in bfloat16", "0.3"),
        ):
            rows.append([f"softmax over {words}: {method}", "1.00", predicted, _ratio(f"softmax-{size}", name)])
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
    """The papers' tables, with the rows that have been run so far."""
    tables = [text(records).replace("\n", f"{where}\n", 1) for where, records in _tables(REPRODUCTIONS)]
    return "\n".join(tables) or "No row is complete yet.\n"


def music() -> str:
    """The tables of ``benchmarks/music.py``, one for each data set, with the rows that have been run so far."""
    tables = [path.read_text(encoding="utf-8") for path in sorted(MUSIC.glob("*/table.md"))]
    return "\n".join(tables) or "No row is complete yet.\n"


def earlier() -> str:
    """The tables of version 0.1."""
    tables = _tables({EARLIER: ""})
    return "\n".join(f"#### {TITLES[records[0].table]}\n\n{body(records)}" for _, records in tables)


def trials(folders: Mapping[Path, str]) -> str:
    """A table of all trials of all rows, which marks those chosen on validation data."""
    rows = []
    for row, best, trial in _trials(folders):
        number = trial["valid_perplexity"]
        shown = trial["message"] or trial["state"] if number is None else f"{number:.1f}"
        chosen = "chosen" if trial is best else ""
        rows.append([row, _values(trial), str(trial["epochs"]), shown, chosen])
    if not rows:
        return "No trial has been run yet.\n"
    return table(["row", "candidate", "epochs", "best validation perplexity", ""], rows)


def _trials(folders: Mapping[Path, str]) -> Iterator[tuple[str, dict[str, Any] | None, dict[str, Any]]]:
    """The name of the row, the best trial of the row, and the trial, for each trial including those beyond the grid."""
    for folder, where in folders.items():
        by_row: dict[str, list[dict[str, Any]]] = {}
        unfinished: set[str] = set()  # nothing is chosen yet
        for path in sorted(
            folder.rglob("search.json"), key=lambda path: (path.parts[:-2], path.parts[-2] != "search", path)
        ):
            search = json.loads(path.read_text(encoding="utf-8"))
            if path.parts[-4] in BASELINES:
                continue  # a study has three hundred
            row = "/".join(path.parts[-4:-2]) + where
            by_row.setdefault(row, []).extend(search["of_each_trial"])
            if len(search["of_each_trial"]) < search["trials"]:
                unfinished.add(row)
        for row, of_row in by_row.items():
            complete = [trial for trial in of_row if trial["state"] == "complete" and row not in unfinished]
            best = min(complete, key=lambda trial: trial["valid_nats"], default=None)
            yield from ((row, best, trial) for trial in of_row)


def _values(trial: dict[str, Any]) -> str:
    return ", ".join(f"{name.partition('.')[2].replace('_', ' ')} {v}" for name, v in trial["values"].items())


METHODS = {
    "plain": "none (PyTorch's layers)",
    "ours-noise-free": "none, here",
    "ours": "NOISIN, additive",
    "ours-multiplicative": "NOISIN, multiplicative",
    "ours-learned": "NOISIN, γ learned",
    "ours-dropout": "variational dropout, here",
    "loop": "noise in a loop in plain PyTorch",
    "variational-dropout": "variational dropout in plain PyTorch",
}


def _learned() -> dict[str, list[Row]]:
    """The logs of runs with learned γ and the first seed of their row, by row and floor."""
    logs = {}
    for folder, where in (REPRODUCTIONS | {EARLIER: ", version 0.1"}).items():
        for path in sorted(folder.rglob("log.csv")):
            config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
            if config["noise"]["learn_spread"] and config["run"]["seed"] in (0, FIRST_SEED):
                name, row = path.relative_to(folder).parts[:2]
                row, floor = name if row == "noisin" else row, config["noise"]["spread_floor"]
                logs[f"{row.removesuffix('-noisin-learned')}, floor {floor}{where}"] = read_log(path)
    return logs


def output_noise() -> str:
    """The second-order penalty of output noise beside the loss that the noise adds."""
    rows = json.loads((RESULTS / "output_noise.json").read_text(encoding="utf-8"))["rows"]
    heads = ["γ", "penalty, nats per step", "added loss, nats per step", "standard error"]
    numbers = ("penalty", "added_loss", "standard_error")
    return table(heads, [[f"{row['spread']:g}", *(f"{row[name]:.5f}" for name in numbers)] for row in rows])


def filtering_gap() -> str:
    """The gap of the filtering bound with the prior as proposal, and the γ that it learns, where both are known."""
    result = json.loads((RESULTS / "filtering_bound.json").read_text(encoding="utf-8"))
    rows = []
    for case, gap in result["gap"].items():
        steps, particles = case.split(", ")
        name = f"{steps}, prior, {particles}, threshold 0.5, with ancestor term"
        learned = f"{result['spread'][name]['ratio']:.3f}" if name in result["spread"] else "–"
        rows.append([steps, particles, f"{gap['nats_per_sequence']:.2f} ± {gap['error']:.2f}", learned])
    return table(["length", "particles", "gap, nats per sequence", "learned γ / maximum-likelihood γ"], rows)


def filtering_step() -> str:
    """Time and memory of a step of the filtering bound, relative to one of the ELBO with as many samples."""
    result = json.loads((RESULTS / "filtering_step.json").read_text(encoding="utf-8"))
    rows = []
    for entry in result["shapes"]:
        shape, ratio = entry["shape"], entry["ratio"]
        data = f"{shape['words']:,} words" if shape["words"] else "88 keys"
        time = f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"
        what = f"{shape['cell']}, {shape['units']} units, {data}, {shape['particles']} particles"
        aim = f"{entry['limit']:g}{'' if entry['met'] else ', missed'}"
        rows.append([what, time, aim, f"{entry['memory_ratio']:.2f}"])
    return table(["network", "time", "aim", "memory"], rows)


EPOCH = 1328  # steps: 929,589 tokens in 20 columns and windows of 35


def cost() -> str:
    """Seconds per epoch of each method, and its cost relative to the plain network, for one layer in table 2."""
    entries = json.loads((RESULTS / "speed" / "cpu" / "table2-1layer.json").read_text(encoding="utf-8"))["entries"]
    rows = []
    for name, title in METHODS.items():
        if name not in entries:
            continue  # not in this measurement
        ratio, milliseconds = entries[name]["ratio"], entries[name]["milliseconds"]["median"]
        range_ = "" if name == "plain" else f" ({ratio['low']:.2f} to {ratio['high']:.2f})"
        rows.append([title, f"{milliseconds * EPOCH / 1000:.0f}", f"{ratio['median']:.2f}{range_}"])
    return table(["method", "seconds per epoch of training", "relative to the plain network"], rows)


def _tables(folders: Mapping[Path, str]) -> list[tuple[str, list[Record]]]:
    """The title suffix and the records of each table with records."""
    tables = [(where, read_records(folder, name)) for name in TABLES for folder, where in folders.items()]
    return [(where, records) for where, records in tables if records]
