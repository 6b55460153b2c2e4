"""Simulation with domain randomization: batches of recordings from heads."""
