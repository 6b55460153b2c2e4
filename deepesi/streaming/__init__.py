"""Live localization: from a stream of EEG to time courses of parcels, without torch."""
