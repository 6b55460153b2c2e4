"""Digest of the code that a result in a cache depends on."""

import functools
import hashlib
from pathlib import Path

import deepesi


@functools.cache
def code_digest(folders: tuple[str, ...]) -> str:
    """Digest of the version and of the code in some folders of the package."""
    digest, root = hashlib.sha256(deepesi.__version__.encode()), Path(deepesi.__file__).parent
    for folder in folders:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
