"""Addresses of servers, as people write them."""

from __future__ import annotations

from urllib.parse import urlsplit

from sterna.domain.errors import BadRequest


def server_url(text: str) -> str:
    """The address of a controller, `https://10.0.0.1:8774`. Raises BadRequest for other text, and for passwords."""
    try:
        parts = urlsplit(text.strip())
        whole = parts.scheme == "https" and parts.hostname and parts.port != 0
    except ValueError:
        whole = False
    if not whole or parts.username is not None or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise BadRequest(
            f"{text[:120]!r} is not the address of a controller", fix="give one like https://10.0.0.1:8774"
        )
    return f"https://{parts.netloc}"
