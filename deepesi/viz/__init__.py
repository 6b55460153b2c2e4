"""Figures from arrays, without estimation and without torch."""
