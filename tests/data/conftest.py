import os
from pathlib import Path

import pytest


@pytest.fixture
def root() -> Path:
    """The folder with the real files."""
    if not os.environ.get("NOISIN_DATA"):
        pytest.skip("NOISIN_DATA is not set: no real files")
    return Path(os.environ["NOISIN_DATA"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small text in three files."""
    (tmp_path / "train.txt").write_text("the cat sat\n\nthe dog sat on the cat\n", encoding="utf-8")
    (tmp_path / "valid.txt").write_text("the dog sat\n", encoding="utf-8")
    (tmp_path / "test.txt").write_text("the cat sat on the dog", encoding="utf-8")
    return tmp_path
