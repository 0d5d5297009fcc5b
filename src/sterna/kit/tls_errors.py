"""What an error of OpenSSL means, for people."""

from __future__ import annotations

_NO_TLS = (
    "WRONG_VERSION_NUMBER",
    "HTTP_REQUEST",
    "UNEXPECTED_EOF",
    "RECORD_LAYER_FAILURE",
    "handshake operation timed",
)
"""A server that speaks something else answers with that, ends the connection, or waits for more."""


def in_words(error: Exception) -> str:
    """As it is, unless it says that the other side speaks no TLS: nothing but the offer of it was sent, then."""
    text = str(error) or repr(error)
    return f"it does not offer TLS ({text})" if any(sign in text for sign in _NO_TLS) else text
