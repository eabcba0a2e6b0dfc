"""The benchmark of reading a text, at a small size."""

import json
from pathlib import Path
from typing import Any

import pytest

from noisin_pyro.data import tokens


def test_all_ways_read_the_same_text(read_text: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOISIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tokens, "LARGE", 1)
    monkeypatch.setattr(read_text, "measured", read_text.measure)
    read_text.main(megabytes=1, rounds=1, result=tmp_path / "result.json")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["text_megabytes"] >= 1 and result["ways"].keys() == {"at once", "in pieces", "again"}
    assert len({way["tokens"] for way in result["ways"].values()}) == 1
