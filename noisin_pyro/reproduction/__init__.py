"""The papers' tables: recipes of their rows, what runs them, their records, and the tables made of these."""

from noisin_pyro.reproduction.recipes import Recipe, figure2, icml_m, table2, table3, zaremba
from noisin_pyro.reproduction.records import Record, read_records
from noisin_pyro.reproduction.report import claims, table
from noisin_pyro.reproduction.rows import How, reproduce

__all__ = [
    "How",
    "Recipe",
    "Record",
    "claims",
    "figure2",
    "icml_m",
    "read_records",
    "reproduce",
    "table",
    "table2",
    "table3",
    "zaremba",
]
