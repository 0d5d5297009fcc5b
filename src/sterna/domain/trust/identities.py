"""Names of agents, controllers, servers of the bus and operators. Pure. A certificate has the name as a DNS name
below `.sterna`. It is never resolved: it says who the holder is, and the addresses beside it say where.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from ipaddress import ip_address

from sterna.domain.addresses import is_address
from sterna.domain.errors import BadRequest
from sterna.domain.model import Value
from sterna.domain.untrusted import is_name

ROOT = "sterna"
"""The domain of all names. Sterna's CA signs no DNS name outside it, except those that `sterna ca init` was
given."""
CONTROLLER_TOKEN = "@controller"  # noqa: S105 - a name on the bus
"""Every controller's name on the bus. No host can have it: a host's name begins with a letter or a digit."""


class Kind(StrEnum):
    """The kind of an identity."""

    AGENT = "agent"
    CONTROLLER = "controller"
    BUS = "bus"
    """A server of the message bus."""
    OPERATOR = "operator"
    """A person or a program. It comes through the API: it has no certificate and no rights on the bus."""


class Identity(Value):
    """One of them."""

    kind: Kind
    name: str
    """A host's name in Sterna; one of the same form for the others."""

    @property
    def dns_name(self) -> str:
        """`host1.agents.sterna`."""
        return f"{self.name}.{_FAMILY[self.kind]}.{ROOT}"

    @property
    def service_name(self) -> str:
        """What all of its kind prove besides, where it does not matter which of them answers; '' for agents."""
        return _SERVICE.get(self.kind, "")

    @property
    def bus_token(self) -> str:
        """Its name in the bus's subjects. Raises BadRequest for an identity without rights there."""
        if self.kind is Kind.AGENT:
            return self.name
        if self.kind is Kind.CONTROLLER:
            return CONTROLLER_TOKEN
        raise BadRequest(f"{self.name} is not a client of the bus: only agents and controllers are")

    def bus_user(self, number: int) -> str:
        """Its user on the bus, for its enrolment with this number (`enrolment.py`).

        A name that is enrolled again has another user, so that the bus refuses the earlier certificate, though it
        reads no revocation list.
        """
        return f"e{number}.{self.dns_name}"


BUS_SERVICE = f"bus.{ROOT}"
CONTROLLER_SERVICE = f"controllers.{ROOT}"
_SERVICE = {Kind.BUS: BUS_SERVICE, Kind.CONTROLLER: CONTROLLER_SERVICE}
_FAMILY = {Kind.AGENT: "agents", Kind.CONTROLLER: "controllers", Kind.BUS: "servers", Kind.OPERATOR: "operators"}


WORDS = {
    Kind.AGENT: "a host",
    Kind.CONTROLLER: "a controller",
    Kind.BUS: "a bus server",
    Kind.OPERATOR: "an operator",
}


def identity(kind: Kind, name: str) -> Identity:
    """The one with this name. Raises BadRequest where it cannot be a name."""
    if not is_name(name):
        raise BadRequest(
            f"{name[:80]!r} cannot be the name of {WORDS[kind]}",
            fix="use 1 to 63 letters, digits, - and _, the first a letter or a digit: host1",
        )
    return Identity(kind=kind, name=name)


def named_by(dns_name: str) -> Identity | None:
    """The identity that a certificate's DNS name stands for; None for another name. Names that differ in case
    differ."""
    name, _, rest = dns_name.partition(".")
    for kind, family in _FAMILY.items():
        if rest == f"{family}.{ROOT}" and is_name(name):
            return Identity(kind=kind, name=name)
    return None


def too_like(name: str, others: Iterable[str]) -> str:
    """Another name that differs in case only, '' for none: the two are one in a certificate."""
    return next((other for other in others if other != name and other.lower() == name.lower()), "")


def addresses_of(given: Iterable[str], permitted: Iterable[str]) -> tuple[str, ...]:
    """The addresses that a certificate is made out to, each once. `permitted`: the domains that the CA may sign.

    Raises BadRequest naming the one that cannot be used. A name below `.sterna` is not an address: it would prove
    another identity.
    """
    domains = tuple(permitted)
    found = dict.fromkeys(text.strip() for text in given)
    for text in found:
        if not is_address(text):
            fix = "give an IPv4 or IPv6 address without brackets and zone, or a host name"
            raise BadRequest(f"{text[:80]!r} is not an address", fix=fix)
        if not may_be_signed(text, domains):
            others = ", ".join(domain for domain in domains if domain != ROOT)
            raise BadRequest(
                f"the CA may not sign {text!r} as an address: "
                + (f"only names below {others}" if others else "only IP addresses"),
                fix="give its IP address, or make a CA with `sterna ca init --domain DOMAIN`",
            )
    return tuple(found)


def may_be_signed(address: str, permitted: Iterable[str]) -> bool:
    """May a CA for these domains sign it as an address?"""
    return is_ip(address) or (below(address, permitted) and not below(address, [ROOT]))


def is_ip(address: str) -> bool:
    """Is it an IPv4 or IPv6 address, and no host name?"""
    try:
        return bool(ip_address(address))
    except ValueError:
        return False


def below(name: str, domains: Iterable[str]) -> bool:
    """Is this DNS name one of the domains, or in one?"""
    lower = name.lower().rstrip(".")
    return any(lower == domain or lower.endswith(f".{domain}") for domain in domains)


def domains_of(given: Iterable[str]) -> tuple[str, ...]:
    """The domains that a new CA may sign names of, ours first. Raises BadRequest for what is none."""
    found = [ROOT]
    for text in given:
        domain = text.strip().lower().strip(".")
        if not domain or not is_address(domain) or is_ip(domain) or "_" in domain:
            raise BadRequest(f"{text[:80]!r} is not a domain", fix="give one like migration.example.org")
        if domain not in found:
            found.append(domain)
    return tuple(found)
