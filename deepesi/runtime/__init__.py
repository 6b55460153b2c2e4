"""Exported files on recordings, without torch."""
