"""Training, evaluation and export from Python: the jobs of the command line on objects.

Everything goes through the configuration and the code of the command of the same name, so a run
from Python and one from a shell give the same. What is public is offered by `deepesi` itself.
"""
