"""What is kept of a secret that its holder shows again: a hash."""

from __future__ import annotations

import hashlib


def digest_of(secret: str) -> str:
    """SHA-256, in hexadecimal. Only for secrets that are random: others could be guessed and tried."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
