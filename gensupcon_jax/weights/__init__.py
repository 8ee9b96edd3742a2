"""Reading and writing weights: names of other programs, files, exports, teachers."""
