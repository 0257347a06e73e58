"""A tiny language model that really corrects itself under steering: its language, its training, its weights."""
