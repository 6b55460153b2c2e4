"""Explanations: which parts of a recording an estimate depends on, and what would change it.

`any_model` explains any model without torch, `networks` needs torch, and `run` is the command.
"""
