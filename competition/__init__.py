"""Packs a submission, grades it as the competition's server does, uploads it, and builds hosted competitions."""
