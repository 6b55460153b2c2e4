"""How sure an estimate is: ensembles of inverse models."""
