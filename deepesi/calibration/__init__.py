"""Prediction sets, intervals and their recalibration, in numpy."""
