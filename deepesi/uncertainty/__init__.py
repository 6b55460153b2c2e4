"""Uncertainty of estimates: ensembles, Monte Carlo dropout, temperature scaling."""
