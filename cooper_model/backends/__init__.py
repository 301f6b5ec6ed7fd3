"""What computes the model: one file a backend, imported when asked for."""
