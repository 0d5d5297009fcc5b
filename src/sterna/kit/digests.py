"""What is kept of a secret that its holder shows again: a hash, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac


def digest_of(secret: str) -> str:
    """SHA-256, in hexadecimal. Only for secrets that are random: others could be guessed and tried."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def matches(secret: str, digest: str) -> bool:
    """Is it the secret of that digest? Takes the same time for every secret."""
    return hmac.compare_digest(digest_of(secret), digest)
