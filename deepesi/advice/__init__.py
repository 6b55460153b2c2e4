"""Which estimate to trust: one recording beside simulated recordings of other people."""
