"""Localization of recordings with exported files, without torch."""
