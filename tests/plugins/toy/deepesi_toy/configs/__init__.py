"""YAML files, laid out as those of deepesi."""
