"""Short scripts that `benchmarks.own_data` compares `auto` with. Each is what a user would write by hand."""
