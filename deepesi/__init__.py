"""deepesi: deep networks that solve the EEG inverse problem once, for every recording."""

__version__ = "0.1.0"
