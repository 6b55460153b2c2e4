"""Figures, movies and pages from arrays, without estimation and without torch."""

from deepesi.viz.cortex_movie import animate_cortex
from deepesi.viz.scalp_movie import animate_scalp

__all__ = ["animate_cortex", "animate_scalp"]
