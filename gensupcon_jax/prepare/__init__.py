"""Preparation and checks of data sets on disk."""
