"""Recipes: `common.py` holds every field, each other file states its differences."""
