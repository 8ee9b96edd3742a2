"""Recipes: `common.py` has every field, each recipe states its differences."""
