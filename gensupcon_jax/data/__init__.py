"""Data sets and the input pipeline, from files or arrays to batches on the devices."""
