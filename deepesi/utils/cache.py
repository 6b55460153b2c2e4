"""The user's cache folder: built heads, and results that take long."""

import os
from pathlib import Path

import pooch


def cache_folder(kind: str = "heads") -> Path:
    """Cache folder of the user; ``DEEPESI_CACHE`` overrides it."""
    own = os.environ.get("DEEPESI_CACHE")
    return (Path(own) if own else Path(pooch.os_cache("deepesi"))) / kind
