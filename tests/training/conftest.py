"""Small data and the settings under which the programs train."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from noisin_pyro.data import Stream
from noisin_pyro.training.run import program_settings


@pytest.fixture(autouse=True)
def as_in_a_program() -> Iterator[None]:
    with program_settings():
        yield


@pytest.fixture
def stream() -> Stream:
    """103 random tokens of 11 kinds in 4 columns: a short last window, in which one column has ended."""
    return Stream(torch.randint(11, (103,)), batch_size=4, window=5)


@pytest.fixture
def texts(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Train, valid and test files of one predictable text: six words in a circle."""
    files = []
    for part, lines in (("train", 60), ("valid", 10), ("test", 10)):
        file = tmp_path / f"{part}.txt"
        file.write_text("one two three four five six\n" * lines)
        files.append(file)
    return files[0], files[1], files[2]
