"""Recordings from files and BIDS data sets."""
