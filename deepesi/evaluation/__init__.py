"""Any inverse models on one seeded test set: table and report."""
