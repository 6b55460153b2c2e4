"""Packaged and own heads from anatomies, offline: boundary elements."""
