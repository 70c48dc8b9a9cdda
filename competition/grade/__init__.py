"""Grades a submission's zip on this machine, in the two stages of the competition's server."""
