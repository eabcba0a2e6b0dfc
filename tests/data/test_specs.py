"""Specifications of the data sets, compared with the real files where they are available."""

import re
from pathlib import Path

import pytest

from noisin_pyro.data import download, load
from noisin_pyro.data.specs import DATASETS, FileSpec

MIRRORS = download.MIRRORS  # read before tests replace it


@pytest.mark.parametrize("name", ["ptb", "wikitext-2", "jsb"])
def test_the_real_files_match(root: Path, name: str) -> None:
    for file in DATASETS[name].files:
        assert (root / file.path).stat().st_size == file.size
        assert file.difference(root / file.path) is None


@pytest.mark.parametrize(
    ("name", "num_sequences"),
    [
        pytest.param("nottingham", (694, 173, 170), marks=pytest.mark.slow),
        ("piano-midi", (87, 12, 25)),
        pytest.param("musedata", (524, 135, 124), marks=pytest.mark.slow),
    ],
)
def test_the_other_collections_have_their_published_numbers_of_sequences(
    root: Path, name: str, num_sequences: tuple[int, int, int]
) -> None:
    if not (root / DATASETS[name].files[0].path).is_file():
        pytest.skip(f"no {name} in NOISIN_DATA")
    corpus = load(name, root)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == num_sequences


@pytest.mark.parametrize("name", DATASETS)
def test_each_set_has_a_license_and_a_fixed_commit(name: str) -> None:
    spec = DATASETS[name]
    assert spec.license.endswith(".") and "\n" not in spec.license
    assert re.fullmatch("[0-9a-f]{40}", spec.commit)
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in spec.files)
    assert len(spec.files) in (1, 3)


def test_mirrors_are_two_hosts() -> None:
    hosts = {mirror.split("/")[2] for mirror in MIRRORS}
    assert len(hosts) == len(MIRRORS) == 2 and all(mirror.startswith("https://") for mirror in MIRRORS)


def test_a_copy_that_differs_says_how(tmp_path: Path) -> None:
    # SHA-256 of "abc", from FIPS 180-2
    file = FileSpec("a.txt", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    path = tmp_path / "a.txt"
    differences = {}
    for content in (b"abc", b"ab", b"abd", b"abcd"):
        path.write_bytes(content)
        differences[content] = file.difference(path)
    assert differences[b"abc"] is None
    assert differences[b"ab"] == "it has 2 of 3 bytes, so it may be truncated"
    assert differences[b"abd"] and differences[b"abcd"] and "SHA-256 starts with" in differences[b"abcd"]
