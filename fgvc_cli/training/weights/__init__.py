"""Initial weights: where they come from, how files are read, and what backbone and head get."""
