"""Standard Webhooks (https://www.standardwebhooks.com): secrets, and the headers of a signed message.

The signature is HMAC-SHA256 over `id.timestamp.body`, in Base64, behind `v1,`. With several secrets there are
several signatures, separated by blanks: a receiver accepts any of them.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Sequence

PREFIX = "whsec_"
LEAST_BYTES, MOST_BYTES = 24, 64
"""Of a secret, as the specification has it."""


def key_of(secret: str) -> bytes:
    """The key that a secret stands for. Raises ValueError, which does not show the secret."""
    if not secret.startswith(PREFIX):
        raise ValueError(f"a secret begins with {PREFIX}, and goes on with 24 to 64 random bytes in Base64")
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError(f"what follows {PREFIX} is not Base64") from None
    if not LEAST_BYTES <= len(key) <= MOST_BYTES:
        raise ValueError(f"it has {len(key)} bytes: use {LEAST_BYTES} to {MOST_BYTES} random bytes")
    return key


def headers(keys: Sequence[bytes], id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """What is sent with `body`. `timestamp`: Unix time of this try, in seconds."""
    signed = f"{id}.{timestamp}.".encode() + body
    made = (base64.b64encode(hmac.digest(key, signed, "sha256")).decode("ascii") for key in keys)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{one}" for one in made),
    }
