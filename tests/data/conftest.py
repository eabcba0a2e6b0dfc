import hashlib
import os
from pathlib import Path

import pytest

from noisin_pyro.data.specs import DATASETS, DatasetSpec, FileSpec


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


@pytest.fixture
def toy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> DatasetSpec:
    """The small text in the place of Penn Treebank, with NOISIN_DATA unset."""
    files = []
    for split in ("train", "valid", "test"):
        content = (folder / f"{split}.txt").read_bytes()
        files.append(FileSpec(f"ptb/ptb.{split}.txt", len(content), hashlib.sha256(content).hexdigest()))
    spec = DatasetSpec("A license for tests.", "some/repository", "c0ffee", "data", tuple(files))
    monkeypatch.setitem(DATASETS, "ptb", spec)
    monkeypatch.delenv("NOISIN_DATA", raising=False)
    return spec
