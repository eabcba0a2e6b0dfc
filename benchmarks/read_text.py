"""Time and memory of reading a large text, piece by piece and at once.

``python benchmarks/read_text.py`` writes ``results/read_text.json``. Each way runs in processes of its own, in turn;
the least seconds of all rounds count. Memory is the peak above that before reading. ``at once`` is how version 0.1 read
texts; ``again`` maps the tokens that ``in pieces`` has written to the cache.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import tyro

from noisin_pyro._files import write_json
from noisin_pyro.data import Vocabulary, load_text
from noisin_pyro.data.encodings import decode
from noisin_pyro.training.provenance import provenance

RESULT = Path(__file__).parents[1] / "results" / "read_text.json"


def write_text(path: Path, megabytes: int, seed: int = 0) -> None:
    """Write a text of 21-token lines eight times. Its words have a Zipf-like distribution as in natural language."""
    generator, size, lines = random.Random(seed), 0, []
    while size < megabytes * 1_000_000 / 8:
        words = (f"w{int(generator.paretovariate(0.7)) % 250_000:03x}" for _ in range(20))
        lines.append(" ".join(words) + " \n")
        size += len(lines[-1])
    path.write_text("".join(lines) * 8, encoding="utf-8")


def in_pieces(path: Path) -> int:
    """Read the tokens as training does. The same text is given three times, as at once."""
    return len(load_text(train=path, valid=path, test=path).train)


def at_once(path: Path) -> int:
    """Read all of each file into memory, then all words, then the tokens."""
    texts = [decode(path.read_bytes(), path).replace("\n", " <eos> ").split() for _ in range(3)]
    vocabulary = Vocabulary.build(texts[0])
    tokens = [vocabulary.encode(words) for words in texts]
    return len(tokens[0])


WAYS: dict[str, Callable[[Path], int]] = {"at once": at_once, "in pieces": in_pieces, "again": in_pieces}


def measured(way: str, path: Path) -> dict[str, float]:
    """Seconds and peak memory in a process of its own."""
    command = [sys.executable, __file__, "--way", way, "--path", str(path)]
    output = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    return json.loads(output.stdout)


def peak_memory() -> float:
    """Peak resident memory of this process, in MB (Linux). ``ru_maxrss`` would include that of its parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def measure(way: str, path: Path) -> dict[str, float]:
    """Seconds, of the clock and of the processor, tokens, and peak memory in MB above that before."""
    before = peak_memory()
    clock, processor = time.perf_counter(), time.process_time()
    tokens = WAYS[way](path)
    seconds, processor = time.perf_counter() - clock, time.process_time() - processor
    memory = peak_memory() - before
    return {"seconds": seconds, "processor_seconds": processor, "tokens": tokens, "megabytes": memory}


def main(
    megabytes: int = 80, rounds: int = 2, result: Path = RESULT, way: str | None = None, path: Path | None = None
) -> None:
    """Measure all ways, or one way in this process."""
    if way is not None and path is not None:
        print(json.dumps(measure(way, path)))
        return
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "text.txt")
        write_text(text, megabytes)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in WAYS}
        for number in range(rounds):
            os.environ["NOISIN_CACHE"] = str(Path(folder, f"cache-{number}"))
            for name, measurements in runs.items():
                measurements.append(measured(name, text))
        keys = ("seconds", "processor_seconds", "megabytes", "tokens")
        table = {name: {key: round(min(run[key] for run in each), 3) for key in keys} for name, each in runs.items()}
        ratio = table["at once"]["processor_seconds"] / table["in pieces"]["processor_seconds"]
        settings = {"seed": 0, "rounds": rounds, "text_megabytes": text.stat().st_size / 1e6}
        content = {**provenance(torch.device("cpu")), **settings, "ways": table, "speed_ratio": round(ratio, 2)}
        write_json(result, content)
    print(result.read_text())


if __name__ == "__main__":
    tyro.cli(main)
