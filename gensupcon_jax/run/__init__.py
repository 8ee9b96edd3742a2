"""A run: checking a config, building its parts, the training loop, and what it reports."""
