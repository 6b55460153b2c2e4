"""Figures from arrays: nothing here computes an estimate or needs torch."""
