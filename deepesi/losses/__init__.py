"""Training objectives: (Estimate, Batch) to one value per example."""
