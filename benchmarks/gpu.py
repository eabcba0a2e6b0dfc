"""Everything that has to be seen on a GPU, in one call: ``python benchmarks/gpu.py`` writes ``results/gpu/``.

1. ``checks.json``: every backend agrees with the loop (float64), a captured step waits for nothing, and captured
   training ends in the same parameters as steps taken one by one;
2. ``epoch-….json``: seconds of an epoch of Penn Treebank (training alone), captured: one tanh layer of 256 at batch 20,
   and the LSTM 2 × 650 at batch 80, γ fixed and learned;
3. ``results/speed/cuda``: every comparison of ``speed.py``;
4. ``precision-….json``: validation perplexity after two epochs in float32, with TF32, and with products in
   bfloat16;
5. ``reproduction`` and ``sweep``: the papers' tables, in the order of ``TABLES``, and a search over family, form and γ
   beside the published paper's dropout; on a CPU reduced, as ``REDUCED`` says.

What has been written is not run again, so that a call that was broken off goes on; ``--minutes`` ends one in good
time. Penn Treebank and WikiText-2 are read from the folder in ``NOISIN_DATA``.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import torch
import tyro

from noisin_pyro import LanguageModel, NoisyRNN, PriorAsGuide_ELBO, Spread
from noisin_pyro.data import Stream
from noisin_pyro.recipes import ICML_STEPS
from noisin_pyro.recurrence.cells import CELLS
from noisin_pyro.recurrence.dispatch import BACKENDS
from noisin_pyro.training.folder import provenance, write_json
from noisin_pyro.training.loop import train_epoch
from noisin_pyro.training.optimizers import build_optimizer
from noisin_pyro.training.run import program_settings
from noisin_pyro.training.stepper import CapturedStepper, Stepper

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "gpu"
REHEARSAL = ROOT / "runs" / "gpu"  # what a CPU has measured is not there when a GPU's turn comes
SETTINGS = {
    "tanh 256": "--batch-size 20",
    "tanh 256, γ learned": "--batch-size 20 --learn-spread",
    "LSTM 2 × 650": "--cell lstm --layers 2 --hidden-size 650 --batch-size 80",
    "LSTM 2 × 650, γ learned": "--cell lstm --layers 2 --hidden-size 650 --batch-size 80 --learn-spread",
}
NOISIN = [sys.executable, "-c", "import sys; from noisin_pyro.cli import main; sys.exit(main())"]
TOKENS = 929_589  # of Penn Treebank, for training
PRECISIONS = {"float32": "", "tf32": "--tf32", "bfloat16": "--products bfloat16"}


MEDIUM = (
    "--data ptb --cell lstm --layers 2 --hidden-size 650 --batch-size 80 --tie-weights --initialization published "
    f"--optimizer ASGD --average-after {50 * ICML_STEPS} --learning-rate 30 --schedule divide --clip 0.25 "
    "--patience None"
)
TABLES = {
    "table 2": "reproduce table2",
    "table 3": "reproduce table3",
    "medium": "reproduce icml-m --epochs 100 --rows none bernoulli gaussian beta d d-beta",
    "table 2, seeds": "reproduce table2 --seeds 3",
    "table 3, seeds": "reproduce table3 --seeds 3",
    "sweep": f"sweep {MEDIUM} --regularizer D --epochs 200 --trials 24 --trial-epochs 30 --spreads 0.2..1.2 "
    "--noises gaussian gaussian:multiplicative beta:multiplicative bernoulli:multiplicative laplace:multiplicative",
}
"""What is run of the tables, the most wanted first."""
REDUCED = {
    "reproduce": "--data pydocs --hidden-size 8 --epochs 1 --trial-epochs 1",
    "sweep": "--data pydocs --hidden-size 8 --epochs 1 --trial-epochs 1 --trials 3",
}
"""The same where there is no GPU; of an option that is given twice the last counts."""


def backends_agree(device: str) -> dict[str, float]:
    """The largest difference of states and gradients from the loop's, over all backends that run a cell."""
    found = {}
    for cell in CELLS:
        for noise in ("gaussian", "gaussian:multiplicative"):
            results = {}
            for backend in BACKENDS:
                torch.manual_seed(0)
                rnn = NoisyRNN(3, 5, 2, cell=cell, noise=noise, backend=backend).double().to(device)
                x = torch.randn(4, 7, 3, device=device, dtype=torch.float64)
                torch.manual_seed(1)
                try:
                    with pyro.plate("sequences", 4, dim=-1):
                        z, _ = rnn(x)
                except ValueError:
                    continue  # it cannot run this cell with this noise
                results[backend] = [z, *torch.autograd.grad(z.sin().sum(), list(rnn.parameters()))]
            found[f"{cell}, {noise}"] = max(
                float((one.detach() - other.detach()).abs().max())
                for each in results.values()
                for one, other in zip(each, results["loop"], strict=True)
            )
    return found


def captured_is_one_by_one(device: str) -> dict[str, float]:
    """The largest difference of parameters after two epochs, without noise: that of replays has numbers of its own."""
    found = {}
    for cell in ("tanh", "lstm", "gru"):
        torch.manual_seed(0)
        stream = Stream(torch.randint(50, (4 * 10 * 60 + 7,)), 4, 10).to(device)
        model = LanguageModel(50, 16, 2, cell=cell, spread=0.0).double().to(device)
        ends = []
        for kind in (Stepper, CapturedStepper):
            bound = PriorAsGuide_ELBO(max_plate_nesting=1)(copy.deepcopy(model))
            steps = kind(bound, build_optimizer("adam", bound.parameters(), 0.01), 0.1)
            for _ in range(2):
                train_epoch(steps, stream.batches())
            ends.append(list(bound.parameters()))
        found[cell] = max(float((a - b).detach().abs().max()) for a, b in zip(*ends, strict=True))
    return found


def waits_for_nothing(device: str) -> list[str]:
    """Cells and noises whose captured step was taken while waiting was an error."""
    seen = []
    for cell in ("tanh", "lstm", "gru"):
        for noise in ("gaussian", "gaussian:multiplicative", "gamma", "bernoulli:multiplicative"):
            learn = noise.startswith("gaussian")
            model = LanguageModel(50, 16, 2, cell=cell, noise=noise, spread=Spread(0.3, learn=learn)).to(device)
            bound = PriorAsGuide_ELBO(max_plate_nesting=1)(model)
            steps = CapturedStepper(bound, build_optimizer("adam", bound.parameters(), 0.01), 5.0)
            for number, batch in enumerate(Stream(torch.randint(50, (200,)), 4, 10).to(device).batches(), start=1):
                if batch.lengths is None:
                    steps.take(batch, number)
            torch.cuda.set_sync_debug_mode("error")
            try:
                steps._step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
            seen.append(f"{cell}, {noise}")
    return seen


def checks(device: str) -> dict[str, Any]:
    with program_settings():
        return {
            "largest_difference_of_engines": backends_agree(device),
            "largest_difference_of_captured_steps": captured_is_one_by_one(device),
            "waits_for_nothing": waits_for_nothing(device),
        }


def trained(options: str, epochs: int, device: str) -> dict[str, Any]:
    """The last row of the log of ``noisin train`` on Penn Treebank with these options."""
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where) / "run"
        command = f"train --data ptb --no-twin --ensemble-samples 0 --epochs {epochs} --device {device} {options}"
        subprocess.run([*NOISIN, *command.split(), "--folder", str(folder)], check=True)
        lines = (folder / "log.csv").read_text(encoding="utf-8").splitlines()
    row = dict(zip(lines[0].split(","), map(float, lines[-1].split(",")), strict=True))
    return {
        "command": f"noisin {command}",
        "seconds_of_training": TOKENS / row["tokens_per_second"],
        "tokens_per_second": row["tokens_per_second"],
        "valid_perplexity": row["valid_perplexity"],
    }


def tables(device: str, folder: Path, end: float) -> bool:
    """Run, or go on with, each of ``TABLES`` until the time is up; whether all of them are done."""
    for name, line in TABLES.items():
        command, *_ = line.split()
        options = f"{line} {REDUCED[command] if device == 'cpu' else ''} --device {device}"
        where = folder / (command if command == "sweep" else "reproduction")
        print(f"{name}: noisin {options}", flush=True)
        run = subprocess.Popen([*NOISIN, *options.split(), "--folder", str(where)])
        try:
            code = run.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            run.terminate()  # which finishes its step and saves
            run.wait()
            print(f"{name}: the time is up; the same command goes on", flush=True)
            return False
        if code:
            raise SystemExit(code)
    return True


def written(path: Path, make: Callable[[], dict[str, Any]], device: str) -> None:
    """Make and write it, unless it is there."""
    if path.exists():
        print(f"{path}: there")
        return
    began = time.perf_counter()
    found = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, found | provenance(torch.device(device)) | {"seconds": round(time.perf_counter() - began)})
    print(path.read_text(encoding="utf-8"), flush=True)


def main(
    device: str = "cuda",
    folder: Path | None = None,
    epochs: int = 2,
    seconds: float = 20.0,
    minutes: float = 1e6,
    tables_alone: bool = False,
) -> int:
    """Everything that has to be seen on a GPU.

    Args:
        device: cuda; cpu rehearses what a CPU can.
        folder: for the numbers; by default results/gpu, and for a rehearsal runs/gpu.
        epochs: of Penn Treebank, timed by the last one, and for the effect of precision.
        seconds: for each comparison of speed.py.
        minutes: time limit of the tables, from the start of all.
        tables_alone: leave out what comes before them.
    """
    end = time.monotonic() + 60 * minutes
    if device == "cuda" and not torch.cuda.is_available():
        print("gpu.py: no CUDA device here; run it where there is one", file=sys.stderr)
        return 2
    where = folder or (FOLDER if device == "cuda" else REHEARSAL)
    if not tables_alone:
        measured(device, where, epochs, seconds)
    tables(device, where, end)
    return 0


def measured(device: str, folder: Path, epochs: int, seconds: float) -> None:
    """What a GPU computes, how fast, and how exactly."""
    gpu = device == "cuda"
    if gpu:
        written(folder / "checks.json", lambda: checks(device), device)
    for name, options in SETTINGS.items():
        short = name.replace(" × ", "x").replace(", γ ", "-").replace(" ", "-").lower()
        written(folder / f"epoch-{short}.json", lambda options=options: trained(options, epochs, device), device)
    speed = [sys.executable, str(ROOT / "benchmarks" / "speed.py"), "--device", device, "--seconds", str(seconds)]
    subprocess.run([*speed, *([] if gpu else ["--folder", str(folder / "speed")])], check=True, env=os.environ)
    for name, options in PRECISIONS.items():
        if gpu or name == "float32":
            written(folder / f"precision-{name}.json", lambda options=options: trained(options, epochs, device), device)


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
