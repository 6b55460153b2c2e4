"""Estimates to files."""
