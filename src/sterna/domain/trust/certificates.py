"""What a certificate must contain, how long it is valid, and when it is renewed. Pure.

One certificate serves the bus, libvirtd's TLS, QEMU's streams and NBD: the host is a client and a server in all of
them.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sterna.domain.addresses import normal
from sterna.domain.model import Value
from sterna.domain.trust.identities import Identity, Kind, addresses_of, is_ip

VALID = timedelta(days=90)
CA_VALID = timedelta(days=3650)
BACKDATED = timedelta(minutes=5)
"""A certificate begins this much earlier: the clock of its holder may be behind the CA's."""
ORGANISATION = "Sterna"
UNITS = {kind: f"{kind.value}s" for kind in Kind}
"""Distinguishes a host from a controller of the same name in lists of distinguished names."""
RENEWED_AFTER = 2 / 3
"""Of its life: a month is left in which renewal may fail."""
WARNED_BEFORE, WARNED_IN_LAST = timedelta(days=14), 1 / 6
"""So long before its end it is said that it expires; of a short life, in this part of it only."""


class Wanted(Value):
    """What the CA writes into a certificate. Only the public key is taken from the request."""

    common_name: str
    unit: str
    """One of UNITS."""
    dns_names: tuple[str, ...]
    """The first is the identity's."""
    ip_addresses: tuple[str, ...]
    not_before: datetime
    not_after: datetime


class Seen(Value):
    """The content of a certificate."""

    dns_names: tuple[str, ...] = ()
    ip_addresses: tuple[str, ...] = ()
    client: bool = False
    """It may be used by a client, and by a server: extended key usage."""
    server: bool = False
    is_ca: bool = False
    not_before: datetime
    not_after: datetime


def wanted(who: Identity, number: int, addresses: Iterable[str], permitted: Iterable[str], now: datetime) -> Wanted:
    """The certificate of this identity, for its enrolment with this number. Raises BadRequest for an address that
    cannot be used."""
    places = addresses_of(addresses, permitted)
    names = [who.dns_name, *([who.service_name] if who.service_name else [])]
    if who.kind is not Kind.BUS:
        names.append(who.bus_user(number))
    return Wanted(
        common_name=who.name,
        unit=UNITS[who.kind],
        dns_names=(*names, *(place for place in places if not is_ip(place))),
        ip_addresses=tuple(place for place in places if is_ip(place)),
        not_before=now - BACKDATED,
        not_after=now + VALID,
    )


def distinguished_name(who: Identity) -> str:
    """The subject of its certificates, as libvirt writes it."""
    return f"O={ORGANISATION},OU={UNITS[who.kind]},CN={who.name}"


def faults(seen: Seen, who: Identity | None, now: datetime, *, addresses: Iterable[str] = ()) -> tuple[str, ...]:
    """Each reason why this certificate does not serve `who`, who is reached at `addresses`; empty where it does.

    `who`: None for a certificate of another CA, which does not have Sterna's names: its addresses count.
    """
    found = []
    names = {name.lower() for name in seen.dns_names}
    places = names | {normal(address) for address in seen.ip_addresses}
    missing = lacking(seen, addresses)
    if who is not None and who.dns_name.lower() not in names:
        found.append(f"it is not issued for {who.dns_name} but for {', '.join(sorted(places)) or 'nobody'}")
    if missing:
        found.append(f"it is not issued for {', '.join(missing)} (subject alternative names)")
    if not (seen.client and seen.server):
        lacks = " and ".join(n for n, has in (("client", seen.client), ("server", seen.server)) if not has)
        found.append(f"it may not be used as a {lacks} (extended key usage)")
    if seen.is_ca:
        found.append("it is a CA's own certificate")
    if now < seen.not_before:
        found.append(f"it is not valid before {seen.not_before:%Y-%m-%d %H:%M} UTC: is this host's clock right?")
    if now >= seen.not_after:
        found.append(f"it expired on {seen.not_after:%Y-%m-%d %H:%M} UTC")
    return tuple(found)


def lacking(seen: Seen, addresses: Iterable[str]) -> tuple[str, ...]:
    """Those of the addresses that this certificate is not made out to."""
    places = {normal(place) for place in (*seen.dns_names, *seen.ip_addresses)}
    return tuple(address for address in addresses if normal(address) not in places)


def renew_at(not_before: datetime, not_after: datetime) -> datetime:
    """When a certificate with this validity is renewed."""
    return not_before + (not_after - not_before) * RENEWED_AFTER


def is_due(not_before: datetime, not_after: datetime, now: datetime) -> bool:
    """Is it time to renew it?"""
    return now >= renew_at(not_before, not_after)


def warned_at(not_before: datetime, not_after: datetime) -> datetime:
    """From when on it is said that a certificate with this validity expires."""
    return not_after - min(WARNED_BEFORE, (not_after - not_before) * WARNED_IN_LAST)


def ending(not_before: datetime, not_after: datetime, now: datetime) -> str:
    """That it expires soon, or has expired; '' where neither is so."""
    if now < warned_at(not_before, not_after):
        return ""
    at = f"{not_after:%Y-%m-%d %H:%M} UTC"
    return f"its certificate expires on {at}" if now < not_after else f"its certificate has expired, on {at}"
