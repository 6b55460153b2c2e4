"""Entries: what the command line calls."""
