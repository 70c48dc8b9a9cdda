"""Labelled leaves → InceptionV3 + quasi-SVM → a SavedModel that a competition's server can run."""
