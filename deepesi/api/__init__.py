"""Training, evaluation and export from Python: the jobs of the command line on objects.

Each function uses the configuration and the code of the command of the same name, so both give the
same results. The public names are in `deepesi` itself.
"""
