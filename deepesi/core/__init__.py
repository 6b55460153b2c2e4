"""Shared parts with torch: contracts, patch operators, dropout, members of ensembles."""
