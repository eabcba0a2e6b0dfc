"""Small data and the settings under which the programs train."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imsave

from noisin_pyro.data import Stream
from noisin_pyro.training.run import program_settings

from .texts import write_texts


@pytest.fixture(autouse=True)
def as_in_a_program() -> Iterator[None]:
    with program_settings():
        yield


@pytest.fixture
def drawn_pictures() -> None:
    """Requested by tests that look at the pictures of a run, or depend on what happens while they are drawn."""


@pytest.fixture(autouse=True)
def blank_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Save pictures of one pixel, unless ``drawn_pictures`` is requested: drawing takes half of a short run's time."""
    if "drawn_pictures" not in request.fixturenames:
        monkeypatch.setattr(Figure, "savefig", lambda figure, path: imsave(path, [[0.0]]))


@pytest.fixture
def stream() -> Stream:
    """103 random tokens of 11 kinds in 4 columns: a short last window, in which one column has ended."""
    return Stream(torch.randint(11, (103,)), batch_size=4, window=5)


@pytest.fixture
def texts(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Train, valid and test files of one predictable text: six words in a circle."""
    return write_texts(tmp_path)
