"""Trials in other people's formats: the reference's result files, both ways, and Parquet."""

from esr.studies.exchange.parquet import write_parquet
from esr.studies.exchange.reading import read_reference
from esr.studies.exchange.writing import write_reference

__all__ = ["read_reference", "write_parquet", "write_reference"]
