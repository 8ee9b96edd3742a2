"""Data sets onto the disk, and what is in them."""
