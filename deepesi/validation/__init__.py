"""Validation on real recordings with a roughly known source location."""
