"""The domain-randomized generator: heads and randomness to batches."""
