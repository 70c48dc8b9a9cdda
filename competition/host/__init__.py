"""Builds a competition from labelled images, for an organizer to upload to Codabench."""
