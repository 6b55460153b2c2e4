"""Explanations of any model, also of exported files and solvers. No torch."""
