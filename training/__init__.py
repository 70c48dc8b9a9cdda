"""Labelled images → InceptionV3 with a classifier → a SavedModel that a competition's server can run."""
