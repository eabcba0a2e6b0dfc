"""Data sets by name, and user-provided texts and music."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from noisin_pyro._lookup import known
from noisin_pyro.data.download import locate
from noisin_pyro.data.polyphony import read_chords
from noisin_pyro.data.pydocs import read_splits
from noisin_pyro.data.sequences import Sequences
from noisin_pyro.data.specs import DATASETS
from noisin_pyro.data.text import read_words
from noisin_pyro.data.vocabulary import Vocabulary

NAMES = (*DATASETS, "pydocs")
MUSIC = tuple(name for name, spec in DATASETS.items() if len(spec.files) == 1)


@dataclass(frozen=True)
class Corpus:
    """A data set in three splits.

    Attributes:
        name: name in results.
        train, valid, test: tokens of a text, ``(num_steps,)`` ``torch.long``, to be batched by :class:`Stream`; or
            :class:`Sequences`.
        vocabulary: the vocabulary of the tokens; ``None`` for music.
    """

    name: str
    train: Tensor | Sequences
    valid: Tensor | Sequences
    test: Tensor | Sequences
    vocabulary: Vocabulary | None


def load(name: str, root: str | Path | None = None) -> Corpus:
    """Load a data set by name.

    Texts: ``"ptb"`` (Penn Treebank), ``"wikitext-2"``, and ``"pydocs"``, which is part of Python. Music: ``"jsb"``,
    ``"nottingham"``, ``"piano-midi"``, ``"musedata"``.

    If ``root`` is given, the files are searched for there only. Else they are searched for in the folder given by the
    environment variable ``NOISIN_DATA``, then in the cache (``NOISIN_CACHE``, or the operating system's cache folder).
    If neither has them, their license is printed to stderr and they are downloaded to the cache. Every file is verified
    by SHA-256.

    Args:
        name: name of the data set.
        root: folder with ``ptb/``, ``wikitext-2/`` and ``polyphonic/``, or with the files themselves.

    Raises:
        ValueError: an unknown name; a ``root`` without the files; a file that is truncated or has other content; a
            cache that cannot be written; a download that failed from both mirrors; ``root`` given for ``"pydocs"``.
    """
    known("data set (load your own data with load_text or load_music)", name, NAMES)
    if name == "pydocs":
        if root is not None:
            raise ValueError(
                f"root must be None for 'pydocs', which is part of Python, got {str(root)!r}; leave root out"
            )
        # Words that occur once in training become <unk>: so it is trained for the unknown words of valid and test.
        return _text_corpus(name, read_splits(), {}, min_count=2)
    paths = locate(name, DATASETS[name], root)
    if len(paths) == 1:
        return Corpus(name, **read_chords(paths[0]), vocabulary=None)
    return load_text(train=paths[0], valid=paths[1], test=paths[2], name=name)


def load_music(path: str | Path) -> Corpus:
    """Load a ``.mat`` file in the format of Boulanger-Lewandowski et al. (2012).

    It must have ``traindata``, ``validdata`` and ``testdata``, cell arrays of piano rolls: zeros and ones, ``(time,
    88)``.

    Raises:
        ValueError: a file that is missing, damaged, or has other content.
    """
    path = Path(path).expanduser()
    return Corpus(path.stem, **read_chords(path), vocabulary=None)


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
    """Load a text in UTF-8 with one sentence per line and words separated by white space.

    The vocabulary is that of ``train``.

    Args:
        folder: folder with ``train.txt``, ``valid.txt`` and ``test.txt``; or pass the three files instead.
        train, valid, test: the three files.
        max_vocabulary: maximum size of the vocabulary, including ``<eos>`` and ``<unk>``; the rarest words become
            ``<unk>``.
        min_count: words that occur less often than this in ``train`` become ``<unk>``.
        name: name of the corpus.

    Raises:
        ValueError: neither or both of ``folder`` and the files; a file that is missing, empty or not UTF-8; a word of
            ``valid`` or ``test`` that is not in ``train``, if there is no ``<unk>``.
    """
    given = {"train": train, "valid": valid, "test": test}
    missing = [split for split, path in given.items() if path is None]
    if folder is None:
        if missing:
            raise ValueError(f"pass a folder, or all of train, valid and test; missing: {', '.join(missing)}")
        paths = {split: Path(path).expanduser() for split, path in given.items() if path is not None}
    else:
        if len(missing) < 3:
            raise ValueError("pass either a folder or the paths train, valid and test, not both")
        paths = {split: Path(folder).expanduser() / f"{split}.txt" for split in given}
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
