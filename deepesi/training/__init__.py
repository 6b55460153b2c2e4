"""How networks train: Lightning module, data module, callbacks."""
