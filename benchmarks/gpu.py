"""Everything that needs a GPU, most valuable first: ``python benchmarks/gpu.py`` writes ``results/gpu``.

Stages, in this order:

1. ``checks``: all backends agree with the loop in float64, training with captured steps ends in the same parameters as
   training step by step, and a captured step never waits for the GPU;
2. ``table2``, ``table3``: the papers' tables, first with one seed and then with four;
3. ``ptb-m``: six rows of the published paper's medium model;
4. ``captured``: captured steps beside PyTorch loops and beside steps that are not captured (``speed.py``);
5. ``epoch-…``: seconds per epoch of Penn Treebank, γ fixed and learned;
6. ``speed``: the other comparisons of ``speed.py``;
7. ``precision-…``: validation perplexity in float32, TF32 and bfloat16;
8. ``sweep``: a search over family, form and γ for the medium model.

A stage that fails does not stop the others. ``progress.json`` and the last lines of output say how far it got; the exit
status is 1 if a stage failed. Finished work is not repeated, so that the same command continues after an interruption.
Penn Treebank and WikiText-2 are read from the folder in ``NOISIN_DATA``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import tyro
from gpu_checks import checks

from noisin_pyro._files import write_json
from noisin_pyro._tables import aligned
from noisin_pyro.reproduction.icml_recipes import ICML
from noisin_pyro.training.provenance import provenance

ROOT = Path(__file__).parents[1]
NOISIN = [sys.executable, "-c", "import sys; from noisin_pyro.cli import main; sys.exit(main())"]
TOKENS = 929_589  # of Penn Treebank's training text
MEDIUM = (
    "--data ptb --cell lstm --num-layers 2 --hidden-size 650 --batch-size 80 --eval-batch-size 10 --tie-weights "
    "--initialization published "
    f"--optimizer ASGD --average-after {50 * ICML['icml-m'].steps} --learning-rate 30 --schedule divide --clip 0.25 "
    "--patience None"
)
TABLES = {
    "table2": "reproduce table2 --seeds 1",
    "table3": "reproduce table3",
    "table2-seeds": "reproduce table2 --seeds 4",
    "table3-seeds": "reproduce table3 --seeds 4",
    "ptb-m": "reproduce icml-m --epochs 100 --rows none gaussian bernoulli beta d d-beta",
}
SWEEP = (
    f"sweep {MEDIUM} --regularizer D --epochs 200 --trials 24 --trial-epochs 30 --spreads 0.2..1.2 "
    "--noises gaussian gaussian:multiplicative beta:multiplicative bernoulli:multiplicative laplace:multiplicative"
)
CAPTURED = ("table2-1layer", "table3", "medium")  # comparisons of speed.py with captured steps and loops
EPOCHS = {
    "epoch-tanh-256": "--batch-size 20",
    "epoch-tanh-256-learned": "--batch-size 20 --learn-spread",
    "epoch-lstm-2x650": "--cell lstm --num-layers 2 --hidden-size 650 --batch-size 80",
    "epoch-lstm-2x650-learned": "--cell lstm --num-layers 2 --hidden-size 650 --batch-size 80 --learn-spread",
}
PRECISIONS = {"float32": "", "tf32": "--tf32", "bfloat16": "--matmul-precision bfloat16"}
REDUCED = {
    "train": "--data pydocs --hidden-size 8",
    "reproduce": "--data pydocs --hidden-size 8 --epochs 1 --trial-epochs 1",
    "sweep": "--data pydocs --hidden-size 8 --epochs 1 --trial-epochs 1 --trials 3",
    "speed": "--max-rounds 1 --min-rounds 1 --no-memory",
}
"""Options that reduce a command for a rehearsal on a CPU; of an option given twice the last counts."""


class OutOfTime(Exception):
    """The time limit was reached before a stage was complete."""


class StageError(Exception):
    """A command or a check has failed."""


@dataclass(frozen=True)
class Session:
    """One call of the script: where it runs, where it writes, and when it has to end."""

    device: str
    folder: Path
    epochs: int
    seconds: float
    deadline: float

    def stages(self) -> dict[str, Callable[[], None]]:
        """The stages by name, most valuable first."""
        stages: dict[str, Callable[[], None]] = {"checks": self.check}
        reproduction = self.folder / "reproduction"
        stages |= {name: partial(self.noisin, line, reproduction) for name, line in TABLES.items()}
        stages |= {"captured": partial(self.speed, CAPTURED)}
        stages |= {name: partial(self.time_epoch, name, options) for name, options in EPOCHS.items()}
        stages |= {"speed": partial(self.speed, ())}
        for name, options in PRECISIONS.items():
            if self.device == "cuda" or name != "tf32":
                stages[f"precision-{name}"] = partial(self.time_epoch, f"precision-{name}", options)
        return stages | {"sweep": partial(self.noisin, SWEEP, self.folder / "sweep")}

    def check(self) -> None:
        """Raises: StageError if a check fails."""
        path = self.folder / "checks.json"
        if path.exists() and not json.loads(path.read_text(encoding="utf-8"))["failed"]:
            return
        result = checks(self.device)
        write_json(path, result | provenance(torch.device(self.device)))
        if result["failed"]:
            raise StageError("; ".join(result["failed"]))

    def noisin(self, line: str, folder: Path) -> None:
        """Run or continue a command of ``noisin`` in that folder."""
        self.run([*NOISIN, *self.reduced(line).split(), "--device", self.device, "--folder", str(folder)])

    def reduced(self, line: str) -> str:
        """The same command, on a CPU at reduced size."""
        return f"{line} {REDUCED[line.split()[0]]}" if self.device == "cpu" else line

    def speed(self, comparisons: tuple[str, ...]) -> None:
        """Run comparisons of ``speed.py``; those that have a result are skipped."""
        command = [sys.executable, str(ROOT / "benchmarks" / "speed.py"), "--device", self.device]
        command += ["--seconds", str(self.seconds)] + (["--comparisons", *comparisons] if comparisons else [])
        if self.device == "cpu":
            command += [*REDUCED["speed"].split(), "--folder", str(self.folder / "speed")]
        self.run(command)

    def time_epoch(self, name: str, options: str) -> None:
        """Train on Penn Treebank, and write the speed and the validation perplexity of the last epoch."""
        path = self.folder / f"{name}.json"
        if path.exists():
            return
        line = f"train --data ptb --no-twin --ensemble-samples 0 --epochs {self.epochs} {options}"
        with tempfile.TemporaryDirectory() as temporary:
            self.noisin(line, Path(temporary) / "run")
            lines = (Path(temporary) / "run" / "log.csv").read_text(encoding="utf-8").splitlines()
        row = dict(zip(lines[0].split(","), map(float, lines[-1].split(",")), strict=True))
        result = {
            "command": f"noisin {self.reduced(line)} --device {self.device}",
            "seconds_of_training": TOKENS / row["tokens_per_second"],
            "tokens_per_second": row["tokens_per_second"],
            "valid_perplexity": row["valid_perplexity"],
        }
        write_json(path, result | provenance(torch.device(self.device)))

    def run(self, command: list[str]) -> None:
        """Run a command until the deadline.

        Raises:
            OutOfTime: at the deadline; the command was asked to save and stop.
            StageError: if it exits with a status other than 0.
        """
        shown = " ".join(command[len(NOISIN) :] if command[: len(NOISIN)] == NOISIN else command)
        print(f"gpu.py: running {shown}", flush=True)
        process = subprocess.Popen(command)
        try:
            status = process.wait(max(0.0, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.terminate()  # noisin finishes its step and saves a checkpoint
            process.wait()
            raise OutOfTime from None
        if status:
            raise StageError(f"{shown!r} exited with status {status}")


def run_stages(stages: Mapping[str, Callable[[], None]], folder: Path, deadline: float) -> dict[str, str]:
    """Run the stages in order, and write after each the status of all to ``progress.json``."""
    statuses = dict.fromkeys(stages, "not started")
    for number, (name, stage) in enumerate(stages.items(), start=1):
        print(f"gpu.py: stage {number} of {len(stages)}, {name}", flush=True)
        try:
            if time.monotonic() >= deadline:
                raise OutOfTime
            stage()
            statuses[name] = "done"
        except OutOfTime:
            statuses[name] = "out of time"
        except Exception as error:  # the other stages are still useful
            traceback.print_exc()
            statuses[name] = f"failed: {error}"
        write_json(folder / "progress.json", statuses)
        if statuses[name] == "out of time":
            break
    return statuses


def main(
    device: str = "cuda",
    folder: Annotated[
        Path | None, tyro.conf.arg(help_behavior_hint="(default: results/gpu; on a CPU runs/gpu)")
    ] = None,
    stages: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="(default: all)")] = (),
    epochs: int = 2,
    seconds: float = 20.0,
    minutes: float = 1e6,
) -> int:
    """Run the stages on a GPU, or rehearse them on a CPU at reduced size.

    Args:
        device: Device to run on; cpu rehearses.
        folder: Folder of the results.
        stages: Names of stages, or prefixes of names.
        epochs: Number of epochs of Penn Treebank for the speed of an epoch and for precisions.
        seconds: Time limit for each comparison of speed.py.
        minutes: Time limit for everything.
    """
    if device == "cuda" and not torch.cuda.is_available():
        print("gpu.py: no CUDA device on this machine; run it on one, or rehearse with --device cpu", file=sys.stderr)
        return 2
    folder = folder or (ROOT / "results" / "gpu" if device == "cuda" else ROOT / "runs" / "gpu")
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * minutes
    every = Session(device, folder, epochs, seconds, deadline).stages()
    unknown = [prefix for prefix in stages if not any(name.startswith(prefix) for name in every)]
    if unknown:
        print(f"gpu.py: stages must be among {', '.join(every)}, got {' '.join(unknown)}", file=sys.stderr)
        return 2
    chosen = {name: stage for name, stage in every.items() if not stages or name.startswith(stages)}
    statuses = run_stages(chosen, folder, deadline)
    failed = {name: status for name, status in statuses.items() if status.startswith("failed")}
    done = sum(status == "done" for status in statuses.values())
    print(f"gpu.py: {done} of {len(statuses)} stages done\n{aligned([*statuses.items()])}")
    if done < len(statuses):
        print("gpu.py: run the same command again to continue")
    if failed:
        print(f"gpu.py: FAILED: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(tyro.cli(main, description=__doc__))
