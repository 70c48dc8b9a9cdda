"""One file an experiment; each holds `recipe`."""
