"""Data sets by name, and any user's own texts and music."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from noisin_pyro._lookup import known
from noisin_pyro.data.batches import Sequences
from noisin_pyro.data.download import locate
from noisin_pyro.data.polyphony import read_chords
from noisin_pyro.data.pydocs import read_splits
from noisin_pyro.data.sets import SETS
from noisin_pyro.data.text import read_words
from noisin_pyro.data.vocabulary import Vocabulary

NAMES = (*SETS, "pydocs")


@dataclass(frozen=True)
class Corpus:
    """A data set in three parts.

    Attributes:
        name: what it is called in results.
        train, valid, test: a text's tokens, ``(num_steps,)`` ``torch.long``, to be cut by :class:`Stream`; or
            :class:`Sequences`, ready for use.
        vocabulary: the words behind the tokens; ``None`` for music.
    """

    name: str
    train: Tensor | Sequences
    valid: Tensor | Sequences
    test: Tensor | Sequences
    vocabulary: Vocabulary | None


def load(name: str, root: str | Path | None = None) -> Corpus:
    """A data set by name, from files that are the published ones byte for byte, or from Python itself.

    Texts: ``"ptb"`` (Penn Treebank), ``"wikitext-2"``, and ``"pydocs"``, which Python carries. Music: ``"jsb"``,
    ``"nottingham"``, ``"piano-midi"``, ``"musedata"``.

    The files are looked for in ``root``, and nowhere else if it is given; in the folder that the environment variable
    ``NOISIN_DATA`` names; in the cache (``NOISIN_CACHE``, or else the operating system's folder for that); and then
    downloaded to the cache, from the first of two mirrors that has them. Before a set's first download its licence is
    told on stderr.

    Args:
        root: the folder with ``ptb/``, ``wikitext-2/`` and ``polyphonic/``, or with the files themselves.

    Raises:
        ValueError: an unknown name; a ``root`` without the files; a file that is cut short or another one; a cache that
            cannot be written; a download that failed from both mirrors; ``root`` given to ``"pydocs"``.
    """
    known("data set (your own data are read by load_text and load_music)", name, NAMES)
    if name == "pydocs":
        if root is not None:
            raise ValueError(f"'pydocs' comes with Python and reads no files, got root={str(root)!r}; leave root out")
        # Every word of valid and test needs a trained stand-in: the words that training sees once give it.
        return _text_corpus(name, read_splits(), {}, min_count=2)
    paths = locate(name, SETS[name], root)
    if len(paths) == 1:
        return Corpus(name, **read_chords(paths[0]), vocabulary=None)
    return load_text(train=paths[0], valid=paths[1], test=paths[2], name=name)


def load_music(path: str | Path) -> Corpus:
    """Any ``.mat`` file of the polyphonic collection (Boulanger-Lewandowski et al., 2012), or one of its form.

    It holds ``traindata``, ``validdata`` and ``testdata``, cell arrays of piano rolls: zeros and ones, ``(time, 88)``.

    Raises:
        ValueError: a file that is missing, damaged, or of another content.
    """
    return Corpus(Path(path).stem, **read_chords(Path(path)), vocabulary=None)


def load_text(
    folder: str | Path | None = None,
    *,
    train: str | Path | None = None,
    valid: str | Path | None = None,
    test: str | Path | None = None,
    max_vocabulary: int | None = None,
    min_count: int = 1,
    name: str = "text",
) -> Corpus:
    """Any text: UTF-8, one sentence a line, words between white space; the vocabulary is that of ``train``.

    Args:
        folder: holds ``train.txt``, ``valid.txt`` and ``test.txt``; or else
        train, valid, test: the three files.
        max_vocabulary: keep at most so many words, ``<eos>`` and ``<unk>`` included; the rarest become ``<unk>``.
        min_count: words that training sees less often than this become ``<unk>``.

    Raises:
        ValueError: neither or both ways of naming the files; a file that is missing, empty or not UTF-8; a word of
            ``valid`` or ``test`` that is not in ``train``, if there is no ``<unk>``.
    """
    given = {"train": train, "valid": valid, "test": test}
    missing = [split for split, path in given.items() if path is None]
    if folder is None:
        if missing:
            raise ValueError(f"give a folder, or all of train, valid and test; missing: {', '.join(missing)}")
        paths = {split: Path(path) for split, path in given.items() if path is not None}
    else:
        if len(missing) < 3:
            raise ValueError("give either a folder or the paths train, valid and test, not both")
        paths = {split: Path(folder) / f"{split}.txt" for split in given}
    texts = {split: read_words(path) for split, path in paths.items()}
    return _text_corpus(name, texts, paths, max_vocabulary, min_count)


def _text_corpus(
    name: str,
    texts: dict[str, list[str]],
    paths: dict[str, Path],
    max_vocabulary: int | None = None,
    min_count: int = 1,
) -> Corpus:
    vocabulary = Vocabulary.build(texts["train"], max_vocabulary, min_count)
    tokens = {split: vocabulary.encode(words, str(paths.get(split, split))) for split, words in texts.items()}
    return Corpus(name, **tokens, vocabulary=vocabulary)
