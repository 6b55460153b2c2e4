"""Localization of all recordings of a data set, as one resumable job."""
