"""Writes estimates to files."""
