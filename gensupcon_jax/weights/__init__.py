"""Weights in and out: names of other programs, files, exports, teachers."""
