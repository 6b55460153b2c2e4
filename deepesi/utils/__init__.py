"""Files, optional imports, processes and memory: what every room may use."""
