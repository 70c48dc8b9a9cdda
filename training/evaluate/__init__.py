"""Metrics, plots, cross-validation, mistakes and the comparison of runs."""
