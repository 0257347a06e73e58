"""Set before any library is imported; fixtures for everyone live in tiny_models."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before the Hugging Face libraries read it: tests use no network

pytest_plugins = ["tiny_models", "organism_studies"]
