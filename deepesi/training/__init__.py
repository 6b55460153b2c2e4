"""Training of networks: Lightning module, data module, callbacks."""
