"""Offline construction of heads from anatomies with the boundary element method."""
