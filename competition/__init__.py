"""Packs a submission, grades it as the competition's server does, and uploads it."""
