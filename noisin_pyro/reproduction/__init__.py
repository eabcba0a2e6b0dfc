"""The papers' tables: recipes of their rows, what runs them, their records, and the tables made of these."""

from noisin_pyro.reproduction.icml_recipes import icml
from noisin_pyro.reproduction.recipe import Recipe
from noisin_pyro.reproduction.recipes import table3, zaremba
from noisin_pyro.reproduction.records import Record, read_records
from noisin_pyro.reproduction.report import claims, table
from noisin_pyro.reproduction.rows import ReproductionOptions, reproduce
from noisin_pyro.reproduction.table2_recipes import figure2, table2

__all__ = [
    "Recipe",
    "Record",
    "ReproductionOptions",
    "claims",
    "figure2",
    "icml",
    "read_records",
    "reproduce",
    "table",
    "table2",
    "table3",
    "zaremba",
]
