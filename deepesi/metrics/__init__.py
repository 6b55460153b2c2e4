"""How close an estimate is to its target: pure functions and one table of them.

A new metric is a function (`functional`, `moments` or `scoring_rules`) and an entry of
`table.METRICS`.
"""
