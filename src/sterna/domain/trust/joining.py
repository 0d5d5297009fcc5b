"""The messages between a host that joins and the CA. Plain values, whatever the transport. Only
`JoinRequest.secret` is secret: it must not be sent before the CA's fingerprint was compared.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from sterna.domain.model import Value

MOST_PEM_BYTES = 16 * 1024
"""A request or a chain of ours has 1 to 2 KiB."""

Pem = Annotated[str, Field(max_length=MOST_PEM_BYTES)]


class JoinRequest(Value):
    """The holder of a token asks for its first certificate. The same request may be sent again: its answer may have
    been lost."""

    v: int = 1
    host: str = Field(max_length=63)
    secret: str = Field(max_length=64, repr=False)
    """The token's."""
    request: Pem
    """A PKCS #10 request, PEM. Only its public key counts."""


class RenewalRequest(Value):
    """The holder of a certificate asks for the next one. It may be sent again."""

    v: int = 1
    certificate: Pem
    """The present one."""
    request: Pem
    """A PKCS #10 request with a new key."""
    signature: str = Field(max_length=1024)
    """Of the request's bytes by the present certificate's key, in base64: the holder of that key may renew."""


class JoinAnswer(Value):
    """A new certificate."""

    v: int = 1
    certificate: Pem
    ca: Pem
    """The CA's own, which the host compares with the one it knows."""
    holder: str = ""
    """Whose certificate it is, for the CA's side: `agent:host1`. It is not sent."""
