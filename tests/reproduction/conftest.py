"""A small text, on which a table's rows take a second each."""

import random
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three files of random sentences, for ``--data``."""
    folder, draw = tmp_path_factory.mktemp("text"), random.Random(0)
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    for part, lines in (("train", 300), ("valid", 100), ("test", 100)):
        sentences = (" ".join(draw.choices(words, range(8, 0, -1), k=9)) for _ in range(lines))
        (folder / f"{part}.txt").write_text("\n".join(sentences) + "\n")
    return folder


@pytest.fixture
def small(text: Path) -> dict[str, Any]:
    """Changes that make a row small, on any processor: recipes multiply in bfloat16, which not all have."""
    return {"data.name": str(text), "model.hidden_size": 4, "model.matmul_precision": "float32",
            "optimization.epochs": 3, "run.ensemble_samples": 2}  # fmt: skip
