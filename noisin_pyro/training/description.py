"""What a model has to know of its data, saved in a run's folder, so that a run can be loaded without them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter

from noisin_pyro._files import write_json
from noisin_pyro._lookup import known
from noisin_pyro.data import Corpus, Sequences, Series, SeriesFormat, Vocabulary
from noisin_pyro.data.vocabulary import Level

DATA = "data.json"
_SERIES = TypeAdapter(SeriesFormat)


@dataclass(frozen=True)
class DataDescription:
    """A data set without its values.

    Attributes:
        name: its name in results.
        vocabulary: that of a text; else None.
        features: number of entries of the input of one step; of a text None.
        series: how a table of series is read and scaled; else None.
    """

    name: str
    vocabulary: Vocabulary | None
    features: int | None
    series: SeriesFormat | None = None

    @classmethod
    def of(cls, corpus: Corpus) -> DataDescription:
        """The description of a corpus."""
        features = corpus.train.inputs.shape[-1] if isinstance(corpus.train, Sequences) else None
        series = corpus.train.format if isinstance(corpus.train, Series) else None
        return cls(corpus.name, corpus.vocabulary, features, series)

    @classmethod
    def read(cls, folder: Path) -> DataDescription | None:
        """Read ``data.json``; None if there is none, as in runs of version 0.1.

        Raises:
            ValueError: a file that is damaged.
        """
        try:
            content = json.loads((folder / DATA).read_bytes())
            words, features = content["vocabulary"], content["features"]
            if not isinstance(content["name"], str) or (words is None) is not (type(features) is int and features > 0):
                raise ValueError("a text has a vocabulary, other data have features")
            if words is not None and not all(isinstance(word, str) for word in words):
                raise ValueError("words must be strings")
            level: Any = known("level", content.get("level", "word"), get_args(Level))  # of version 0.1: words
            series = content.get("series")  # missing before there were tables
            if series is not None:
                series = _SERIES.validate_json(json.dumps(series), strict=True)
                if series.layout.input_size != features:
                    raise ValueError(f"features must be {series.layout.input_size}, got {features}")
            return cls(content["name"], None if words is None else Vocabulary(words, level), features, series)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{folder / DATA} is damaged ({error}); restore it, or remove it to read the data"
            ) from error

    def write(self, folder: Path) -> None:
        """Write ``data.json``."""
        words = None if self.vocabulary is None else self.vocabulary.words
        level = {} if self.vocabulary is None else {"level": self.vocabulary.level}
        content = {"name": self.name, "features": self.features, **level, "vocabulary": words}
        series = {} if self.series is None else {"series": dataclasses.asdict(self.series)}
        write_json(folder / DATA, content | series)
