"""The data and settings of the tests of training."""

from ..training.conftest import as_in_a_program, blank_pictures, drawn_pictures, texts

__all__ = ["as_in_a_program", "blank_pictures", "drawn_pictures", "texts"]
