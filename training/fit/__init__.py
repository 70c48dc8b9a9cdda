"""Fine-tuning, cached features, and the heads that are trained on them."""
