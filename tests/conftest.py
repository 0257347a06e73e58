"""Set before any library is imported; fixtures for everyone live in tiny_models."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before the Hugging Face libraries read it: tests use no network

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch loads: threads of tiny models wait for each other

pytest_plugins = ["tiny_models", "organism_studies"]
