"""Timings of training and of ensembles: ``python -m benchmarks.NAME``, from the repository."""
