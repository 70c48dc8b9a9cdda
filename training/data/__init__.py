"""Arrays → split → balance → augmentation → batches."""
