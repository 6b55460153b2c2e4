"""Classical inverses: inverse models without weights."""
