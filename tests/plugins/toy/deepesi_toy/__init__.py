"""A package that adds to deepesi."""
