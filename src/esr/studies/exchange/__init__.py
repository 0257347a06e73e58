"""Trials in other people's formats: the reference's result files, both ways, inspect_ai's logs, and Parquet."""

from esr.studies.exchange.inspect_log import write_eval
from esr.studies.exchange.parquet import write_parquet
from esr.studies.exchange.reading import read_reference
from esr.studies.exchange.writing import write_reference

__all__ = ["read_reference", "write_eval", "write_parquet", "write_reference"]
