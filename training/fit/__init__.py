"""Fine-tuning, cached features, and the quasi-SVM head."""
