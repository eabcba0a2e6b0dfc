"""Texts and music as batches of sequences: ``load`` or ``load_text``, then ``Stream`` for texts."""

from noisin_pyro.data.batches import Batch, Sequences, Stream
from noisin_pyro.data.catalog import Corpus, load, load_text
from noisin_pyro.data.vocabulary import Vocabulary

__all__ = ["Batch", "Corpus", "Sequences", "Stream", "Vocabulary", "load", "load_text"]
