"""Recordings and forward solutions of MNE-Python to head models, checked at this border."""
