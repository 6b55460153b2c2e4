"""Explanations: what of a recording an estimate is made of, and what would change it.

`frames`, `targets`, `occlusion` and `counterfactual` need no torch and work on any model.
"""
