"""Networks that draw from the posterior of the sources, one file each."""
