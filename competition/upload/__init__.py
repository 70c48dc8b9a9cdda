"""Sends a submission's zip to Codabench and waits for its scores. Imports neither TensorFlow nor scikit-learn."""
