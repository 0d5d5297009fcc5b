"""The list of revoked certificates on its way from the CA to the hosts. Pure.

The CA signs and numbers it. A host takes a newer one only, whoever brings it.
"""

from __future__ import annotations

from datetime import datetime

from sterna.domain.errors import BadRequest
from sterna.domain.model import Data, Value
from sterna.domain.trust.enrolment import Register, revoked
from sterna.domain.trust.identities import Kind
from sterna.domain.untrusted import is_name

MOST_BYTES = 256 * 1024
"""Of a list: some 4,000 certificates. A message on the bus may have 512 KiB."""
MOST_NAMES = 2_000


class RevokedList(Value):
    """What a host is handed."""

    number: int
    """Of this list: a later one has a larger number."""
    pem: str
    """Signed by the CA."""
    removed: tuple[str, ...] = ()
    """The hosts whose certificates are all revoked: connections that they have are closed."""


def numbered(before: Register, after: Register, now: datetime) -> Register:
    """`after`, with the number of its list: another one only where the list differs from that of `before`.

    A number is a time in milliseconds, so that it grows as well when the CA was restored from an old backup.
    """
    if revoked(before) == revoked(after):
        return after
    number = max(before.listed + 1, round(now.timestamp() * 1000))
    return after.model_copy(update={"listed": number})


def number_of(register: Register) -> int:
    """Of its list; 0 while nothing was revoked: then there is nothing to hand out."""
    return max(register.listed, 1) if revoked(register) else 0


def removed_hosts(register: Register) -> tuple[str, ...]:
    """Those that have had a certificate, and have none in force."""
    return tuple(m.name for m in register.of_kind(Kind.AGENT) if m.number and not m.joined)


def to_wire(given: RevokedList) -> Data:
    """As parameters of `take_revoked`."""
    return {"number": given.number, "pem": given.pem, "removed": list(given.removed)}


def from_wire(params: Data) -> RevokedList:
    """Raises BadRequest for what is none."""
    pem, number, removed = params.get("pem"), params.get("number"), params.get("removed")
    if not isinstance(pem, str) or len(pem) > MOST_BYTES or type(number) is not int or number < 1:
        raise BadRequest(f"take_revoked needs `number`, and `pem` of at most {MOST_BYTES} bytes")
    if not isinstance(removed, list) or len(removed) > MOST_NAMES or not all(map(_is_host, removed)):
        raise BadRequest(f"take_revoked needs `removed`, at most {MOST_NAMES} names of hosts")
    return RevokedList(number=number, pem=pem, removed=tuple(removed))


def _is_host(name: object) -> bool:
    return isinstance(name, str) and is_name(name)
