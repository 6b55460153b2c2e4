"""Explanations that need torch: gradients, the steps inside a network, grades of methods."""
