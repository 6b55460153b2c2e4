"""Heads, lead fields and quantities computed from them, without torch."""
