"""What BLAS on a CPU asks of a batch."""

MIN_ROWS = 16
"""Rows multiplied at once, at least: below, the kernels change with the number of rows, and the last bits with them."""
