"""Training programs: one readable file a stage, over shared parts. Runs from the checkout and is not installed."""
