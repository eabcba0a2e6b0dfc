"""The papers' tables, run and written: ``noisin reproduce``."""

from noisin_pyro.reproduction.records import Record, read_records
from noisin_pyro.reproduction.report import claims, table
from noisin_pyro.reproduction.rows import How, reproduce

__all__ = ["How", "Record", "claims", "read_records", "reproduce", "table"]
