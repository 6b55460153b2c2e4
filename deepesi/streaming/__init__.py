"""Localizing what is being recorded: a stream of EEG in, time courses of regions out. No torch."""
