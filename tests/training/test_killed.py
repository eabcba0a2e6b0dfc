"""SIGKILL at twenty random moments, and the same parameters at the end, bit for bit."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from noisin_pyro.training.rundir import checkpointer, metrics_log

from ..processes import run_or_fail

KILLS = 20
OPTIONS = (
    "--batch-size 4 --window 5 --hidden-size 8 --cell lstm --learn-spread --num-particles 2 --epochs 6 "
    "--learning-rate 0.01 --schedule divide --ensemble-samples 3 --checkpoint-steps 2"
)


def _run(texts: tuple[Path, Path, Path], folder: Path, kills: int) -> list[Path]:
    folder.mkdir()
    command = [sys.executable, str(Path(__file__).with_name("killed.py")), str(folder), str(kills)]
    done = run_or_fail([*command, "--files", *map(str, texts), *OPTIONS.split()])
    assert done.returncode == 0, done.stderr + "".join(path.read_text() for path in folder.glob("*.err"))
    struck = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("kills ")]
    assert sum(struck) == kills
    return [folder / str(number + 1) for number in range(len(struck))]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_twenty_times_a_run_ends_in_the_same_bits(texts: tuple[Path, Path, Path], tmp_path: Path) -> None:
    (whole,) = _run(texts, tmp_path / "whole", 0)
    for broken in _run(texts, tmp_path / "broken", KILLS):
        for part in (".", "deterministic"):
            actual, expected = (checkpointer.load(run / part / "best.pt") for run in (broken, whole))
            assert actual["epoch"] == expected["epoch"]
            assert actual["model"].keys() == expected["model"].keys()
            for name, value in expected["model"].items():
                assert torch.equal(actual["model"][name], value), f"{part}/{name}"
            rows = [metrics_log.read(run / part / "log.csv") for run in (broken, whole)]
            for row in (*rows[0], *rows[1]):
                del row["seconds"], row["tokens_per_second"]
            assert rows[0] == rows[1]
            results = [json.loads((run / part / "result.json").read_text()) for run in (broken, whole)]
            for key in ("valid", "test", "test_ensemble", "best_epoch", "spreads"):
                assert results[0][key] == results[1][key]
