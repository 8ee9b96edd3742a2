"""A run: a checked config, its parts, the loop, and what it says meanwhile."""
