"""The token that lets a host join: one word, used once, valid for 15 minutes. Pure.

It holds the CA's fingerprint, so that the host trusts no server before it has seen the right CA. It holds a secret,
of which the CA keeps a hash only.
"""

from __future__ import annotations

import re
from datetime import timedelta

from sterna.domain.errors import BadRequest
from sterna.domain.model import Value
from sterna.domain.untrusted import is_name

VALID = timedelta(minutes=15)
SECRET_BYTES = 16
_FORM = "sterna1"
"""Begins every token, with the number of its form."""
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_SECRET = re.compile(rf"[0-9a-f]{{{2 * SECRET_BYTES}}}")
_AGAIN = "copy the whole token that `sterna host add` printed: it is one word"


class JoinToken(Value):
    """The content of a token."""

    host: str
    fingerprint: str
    """SHA-256 of the CA's certificate (DER), in lower-case hexadecimal digits."""
    secret: str

    @property
    def word(self) -> str:
        """The token as it is printed and typed."""
        return f"{_FORM}.{self.host}.{self.fingerprint}.{self.secret}"

    def __repr__(self) -> str:
        """Without the secret, as it may reach a log."""
        return f"JoinToken(host={self.host!r}, fingerprint={self.fingerprint!r})"

    __str__ = __repr__


def read(word: str) -> JoinToken:
    """The token that was typed. Raises BadRequest, without repeating it: it is a secret."""
    parts = word.strip().split(".")
    if parts[0] != _FORM:
        newer = re.fullmatch(r"sterna[0-9]{1,4}", parts[0])
        fix = "upgrade Sterna on this host: the token is of a newer version" if newer else _AGAIN
        raise BadRequest("this is not a token to join with", fix=fix)
    if len(parts) != 4:
        raise BadRequest("the token is not whole", fix=_AGAIN)
    _, host, fingerprint, secret = parts
    if not (is_name(host) and _FINGERPRINT.fullmatch(fingerprint) and _SECRET.fullmatch(secret)):
        raise BadRequest("the token is damaged", fix=_AGAIN)
    return JoinToken(host=host, fingerprint=fingerprint, secret=secret)
