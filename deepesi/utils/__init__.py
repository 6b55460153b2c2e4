"""Files, optional imports, processes and memory: what every folder of the package may use."""
