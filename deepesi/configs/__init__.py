"""Values of the Hydra configurations; no logic."""
