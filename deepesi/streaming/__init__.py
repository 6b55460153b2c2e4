"""Localizing what is being recorded: a stream of EEG in, time courses of parcels out. No torch."""
