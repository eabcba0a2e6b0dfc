"""Data sets: ``load``, ``load_text`` and ``load_music`` read them, ``Stream`` and ``Sequences`` make batches.

``from_arrays``, ``from_frame`` and ``load_table`` make a :class:`Series` of measurements.
"""

from noisin_pyro.data.arrays import from_arrays
from noisin_pyro.data.batches import Batch, Stream
from noisin_pyro.data.catalog import Corpus, load, load_music, load_text
from noisin_pyro.data.frames import from_frame
from noisin_pyro.data.scaling import InputLayout, Scaling
from noisin_pyro.data.sequences import Sequences, collate
from noisin_pyro.data.series import Series
from noisin_pyro.data.series_format import Columns, SeriesFormat
from noisin_pyro.data.table_files import load_table, read_table
from noisin_pyro.data.vocabulary import Vocabulary

__all__ = [
    "Batch",
    "Columns",
    "Corpus",
    "InputLayout",
    "Scaling",
    "Sequences",
    "Series",
    "SeriesFormat",
    "Stream",
    "Vocabulary",
    "collate",
    "from_arrays",
    "from_frame",
    "load",
    "load_music",
    "load_table",
    "load_text",
    "read_table",
]
