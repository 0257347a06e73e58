"""The experiments: each a small file that lists conditions, or reads trials."""
