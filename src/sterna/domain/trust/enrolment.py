"""The register of enrolled processes and their certificates, and its changes when one joins, renews or is removed.
Pure.

A register is a value: every function returns the one that comes after. `adapters/identity` keeps it in a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Literal

from sterna.domain.errors import BadRequest, Conflict, NotFound
from sterna.domain.model import Value
from sterna.domain.trust.identities import Identity, Kind, too_like

ADD = {
    Kind.AGENT: "sterna host add {}",
    Kind.CONTROLLER: "sterna ca issue controller {}",
    Kind.BUS: "sterna ca issue bus {}",
}
"""What enrols one of each kind."""
MOST_CERTIFICATES = 128
"""That one enrolment has at a time. Each stays in the register until it expires, and who has joined may renew as
often as it likes. One that is well has two; a try each day whose answer is lost makes thirty in its last month."""


class Invitation(Value):
    """A token that was given out and can be used, or was used by one key."""

    secret_hash: str
    """SHA-256 of the token's secret."""
    expires: datetime
    key: str = ""
    """SHA-256 of the public key that used it; '' while it is unused. The same key may ask again: its answer may
    have been lost."""


class Issued(Value):
    """A certificate that was signed."""

    serial: str
    """Hexadecimal digits."""
    number: int
    """The enrolment's."""
    not_after: datetime
    revoked: datetime | None = None


class Member(Value):
    """One who is, or was, enrolled. A removed one is kept: its number must not come again."""

    kind: Kind
    name: str
    addresses: tuple[str, ...] = ()
    number: int = 0
    """Of its enrolment: one more each time it joins again. 0: it has not joined yet."""
    invitation: Invitation | None = None
    removed: datetime | None = None
    certificates: tuple[Issued, ...] = ()

    @property
    def identity(self) -> Identity:
        """Who it is."""
        return Identity(kind=self.kind, name=self.name)

    @property
    def joined(self) -> bool:
        """Does it take part? One that was removed and may join again does not yet."""
        present = (c for c in self.certificates if c.number == self.number and c.revoked is None)
        return self.removed is None and any(present)


class Register(Value):
    """All of them, in the order of their first enrolment."""

    v: int = 1
    members: tuple[Member, ...] = ()
    listed: int = 0
    """Number of the list of revoked certificates (`revocation.py`); 0 before the first."""

    def find(self, who: Identity) -> Member | None:
        """The one with exactly this name, removed ones too."""
        return next((m for m in self.members if m.identity == who), None)

    def of_kind(self, kind: Kind) -> Iterator[Member]:
        """All of a kind, removed ones too."""
        return (member for member in self.members if member.kind is kind)

    def put(self, changed: Member) -> Register:
        """The register with this member, new or in the place of the earlier one."""
        if self.find(changed.identity) is None:
            return self.model_copy(update={"members": (*self.members, changed)})
        members = tuple(changed if m.identity == changed.identity else m for m in self.members)
        return self.model_copy(update={"members": members})


def invited(
    register: Register, who: Identity, addresses: Iterable[str] | None, invitation: Invitation | None
) -> Register:
    """`who` may join. `addresses`: None keeps the ones it had. One that has joined before may join again; its
    certificate is valid until then.

    Raises Conflict for a name that differs from another one in case only.
    """
    like = too_like(who.name, (member.name for member in register.of_kind(who.kind)))
    if like:
        fix = "choose another name: a certificate does not distinguish the two"
        raise Conflict(f"{who.name} differs from {like}, which is enrolled, in case only", fix=fix)
    known = register.find(who) or Member(kind=who.kind, name=who.name)
    places = known.addresses if addresses is None else tuple(addresses)
    changed = {"addresses": places, "invitation": invitation, "removed": None}
    return register.put(known.model_copy(update=changed))


def redeemed(register: Register, who: Identity, secret_hash: str, key: str, now: datetime) -> Member:
    """The member whose token this is; the public key with the hash `key` wants the certificate.

    Raises Conflict for a token that cannot be used. The answer does not say why: the sender may be guessing.
    """
    member = register.find(who)
    invitation = member.invitation if member is not None else None
    if member is None or invitation is None or invitation.secret_hash != secret_hash:
        raise _unusable(who, "is not valid, or is not the last one that was given out")
    if invitation.key not in ("", key):
        raise _unusable(who, "was used already, by another key")
    if now >= invitation.expires:
        raise _unusable(who, f"expired at {invitation.expires:%H:%M} UTC")
    if invitation.key:
        _check_number(member, now)
    return member


def _check_number(member: Member, now: datetime) -> None:
    """Raises Conflict where it has as many certificates as it may."""
    present = [c for c in member.certificates if c.number == member.number and now < c.not_after]
    if len(present) >= MOST_CERTIFICATES:
        fix = f"find out why it asks so often; let it join again: {ADD[member.kind].format(member.name)}"
        raise Conflict(f"{member.name} has {len(present)} certificates that have not expired", fix=fix)


def _unusable(who: Identity, why: str) -> Conflict:
    return Conflict(f"the token of {who.name} {why}", fix=f"get a new one: {ADD[who.kind].format(who.name)}")


def to_sign(register: Register, who: Identity) -> Member:
    """The member whose request an operator signs by hand. Raises NotFound, or Conflict where it has joined."""
    member = register.find(who)
    if member is None or member.removed is not None:
        raise NotFound(f"{who.name} is not enrolled", fix=f"run `{ADD[who.kind].format(who.name)}` first")
    if member.invitation is None or member.invitation.key:
        fix = f"run `{ADD[who.kind].format(who.name)}` to let it join again, which revokes its certificate"
        raise Conflict(f"{who.name} has joined already", fix=fix)
    return member


def joined(register: Register, who: Identity, issued: Issued, key: str, now: datetime) -> Register:
    """`who` has got its first certificate of a new enrolment. Earlier ones are revoked. A key that repeats its
    request stays in the same enrolment."""
    member = _member(register, who)
    invitation = member.invitation.model_copy(update={"key": key}) if member.invitation is not None else None
    earlier = tuple(_revoked(c, now) if c.number != issued.number else c for c in member.certificates)
    changed = {
        "number": issued.number,
        "invitation": invitation,
        "removed": None,
        "certificates": (*_fresh(earlier, now), issued),
    }
    return register.put(member.model_copy(update=changed))


def next_number(member: Member, key: str) -> int:
    """The number of the enrolment that begins with the public key `key`."""
    again = member.invitation is not None and member.invitation.key == key
    return member.number if again else member.number + 1


def renewable(register: Register, serial: str, now: datetime) -> Member:
    """The member who may have a new certificate for the one with this serial number. Raises Conflict."""
    for member in register.members:
        for certificate in member.certificates:
            if certificate.serial != serial:
                continue
            fix = f"let it join again: {ADD[member.kind].format(member.name)}"
            if member.removed is not None:
                raise Conflict(f"{member.name} was removed", fix=fix)
            if certificate.revoked is not None or certificate.number != member.number:
                raise Conflict(f"this certificate of {member.name} was revoked", fix=fix)
            if now >= certificate.not_after:
                raise Conflict(f"this certificate of {member.name} has expired", fix=fix)
            _check_number(member, now)
            return member
    raise Conflict("this certificate is not in the register of the CA", fix="let its holder join again")


def renewed(register: Register, who: Identity, issued: Issued, now: datetime) -> Register:
    """`who` has got another certificate in the same enrolment. The earlier one is good until it expires."""
    member = _member(register, who)
    certificates = (*_fresh(member.certificates, now), issued)
    return register.put(member.model_copy(update={"certificates": certificates}))


def removed(register: Register, who: Identity, now: datetime) -> Register:
    """`who` takes part no more: all its certificates are revoked. Idempotent. Raises NotFound."""
    member = register.find(who)
    if member is None:
        known = ", ".join(m.name for m in register.of_kind(who.kind) if m.removed is None) or "nobody"
        raise NotFound(f"{who.name} is not enrolled", fix=f"enrolled are: {known}")
    if member.removed is not None:
        return register
    certificates = tuple(_revoked(c, now) for c in member.certificates)
    return register.put(
        member.model_copy(update={"removed": now, "invitation": None, "certificates": certificates})
    )


def revoked(register: Register) -> tuple[tuple[str, datetime], ...]:
    """The serial number of each revoked certificate, and since when."""
    found = (c for member in register.members for c in member.certificates)
    return tuple((c.serial, c.revoked) for c in found if c.revoked is not None)


def on_the_bus(register: Register) -> tuple[tuple[Identity, str], ...]:
    """Who may use the bus, and the user of each."""
    clients = (m for m in register.members if m.joined and m.kind in (Kind.AGENT, Kind.CONTROLLER))
    return tuple((m.identity, m.identity.bus_user(m.number)) for m in clients)


class EnrolledHost(Value):
    """A host, as the CA's register has it."""

    name: str
    state: Literal["invited", "joined", "removed"]
    """`invited`: it may join, and has not. One that takes part and may join again is `joined`."""
    addresses: tuple[str, ...] = ()
    """In migration networks: its certificate is made out to them."""
    until: datetime | None = None
    """When the last of its certificates in force expires; None where it has none."""
    removed: datetime | None = None


def hosts_of(register: Register) -> dict[str, EnrolledHost]:
    """All hosts, removed ones too, by name."""
    return {member.name: _host(member) for member in register.of_kind(Kind.AGENT)}


def _host(member: Member) -> EnrolledHost:
    present = [c.not_after for c in member.certificates if c.number == member.number and c.revoked is None]
    return EnrolledHost(
        name=member.name,
        state="removed" if member.removed else "joined" if member.joined else "invited",
        addresses=member.addresses,
        until=max(present, default=None),
        removed=member.removed,
    )


def _member(register: Register, who: Identity) -> Member:
    member = register.find(who)
    if member is None:
        raise BadRequest(f"{who.name} is not enrolled")
    return member


def _revoked(certificate: Issued, now: datetime) -> Issued:
    return certificate if certificate.revoked is not None else certificate.model_copy(update={"revoked": now})


def _fresh(certificates: Iterable[Issued], now: datetime) -> tuple[Issued, ...]:
    """Without those that have expired: they are refused anyway, revoked or not."""
    return tuple(c for c in certificates if now < c.not_after)
