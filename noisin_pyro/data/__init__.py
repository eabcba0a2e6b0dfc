"""Data sets: ``load``, ``load_text`` and ``load_music`` read them, ``Stream`` and ``Sequences`` make batches."""

from noisin_pyro.data.batches import Batch, Sequences, Stream
from noisin_pyro.data.catalog import Corpus, load, load_music, load_text
from noisin_pyro.data.vocabulary import Vocabulary

__all__ = ["Batch", "Corpus", "Sequences", "Stream", "Vocabulary", "load", "load_music", "load_text"]
