"""Recipes: their fields, strict overrides, and the records of runs."""
