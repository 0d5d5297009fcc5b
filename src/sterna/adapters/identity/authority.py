"""A CA in a folder: key, certificate, the register of who is enrolled, and the list of revoked certificates.

Changes are made one at a time, under the folder's lock. The register is written before a certificate leaves the CA:
an unregistered one could not be revoked.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from pydantic import ValidationError

from sterna.adapters.identity import private_files
from sterna.adapters.identity.x509 import (
    Key,
    domains_of,
    fingerprint,
    key_pem,
    new_ca,
    new_key,
    pem_of,
    public_hash,
    read_certificates,
    read_key,
    read_request,
    requested_name,
    revocation_list,
    signed,
)
from sterna.adapters.identity.x509 import seen as seen_in
from sterna.domain.errors import BadRequest, Conflict, NotFound
from sterna.domain.trust import certificates, enrolment, join_token, revocation
from sterna.domain.trust.enrolment import Invitation, Issued, Member, Register
from sterna.domain.trust.identities import Identity, Kind, addresses_of, identity
from sterna.domain.trust.join_token import JoinToken
from sterna.domain.trust.revocation import RevokedList

KEY, CERTIFICATE, REGISTER, REVOKED = "ca.key", "ca.crt", "register.json", "revoked.crl"


def _now() -> datetime:
    return datetime.now(UTC)


class Signed(NamedTuple):
    """A certificate, and whom it was made for."""

    who: Identity
    certificate: x509.Certificate
    pem: bytes


class Authority:
    """The CA in this folder. Methods raise BadRequest, Conflict or NotFound, each with what would fix it."""

    def __init__(
        self, folder: Path, key: Key, certificate: x509.Certificate, clock: Callable[[], datetime]
    ) -> None:
        self._folder = folder
        self._key = key
        self.certificate = certificate
        self._now = clock

    @classmethod
    def make(cls, folder: Path, domains: Iterable[str], clock: Callable[[], datetime] = _now) -> Authority:
        """A new CA. `domains`: DNS names that it may sign besides ours. Raises Conflict where one is there."""
        private_files.make_folder(folder)
        with private_files.alone(folder):
            _refuse_another(folder)
            key = new_key()
            certificate = new_ca(key, domains, clock())
            authority = cls(folder, key, certificate, clock)
            authority._write(Register(), Register())
            private_files.write(folder / CERTIFICATE, pem_of(certificate), 0o644)
            private_files.write(folder / KEY, key_pem(key))  # last: with it the CA is whole
        return authority

    @classmethod
    def open(cls, folder: Path, clock: Callable[[], datetime] = _now) -> Authority:
        """The CA that is there. Raises NotFound, or BadRequest where it cannot be used."""
        make = f"make a CA with `sterna ca init --ca {folder}`, or name its folder with --ca"
        if not folder.exists():
            raise NotFound(f"there is no CA in {folder}", fix=make)
        private_files.check_folder(folder)
        key = read_key(private_files.read(folder / KEY, fix=make, secret=True), str(folder / KEY))
        text = private_files.read(folder / CERTIFICATE, fix="restore it from the CA's backup")
        certificate = read_certificates(text, str(folder / CERTIFICATE))[0]
        if public_hash(key) != public_hash(certificate):
            raise BadRequest(
                f"{folder}: the key is not that of the certificate", fix="restore both from one backup"
            )
        if clock() >= certificate.not_valid_after_utc:
            raise BadRequest(f"the CA in {folder} has expired", fix="make a new one; every host has to join again")
        return cls(folder, key, certificate, clock)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its certificate."""
        return fingerprint(self.certificate)

    @property
    def pem(self) -> bytes:
        """Its certificate."""
        return pem_of(self.certificate)

    def register(self) -> Register:
        """Who is enrolled now."""
        path = self._folder / REGISTER
        text = private_files.read(path, fix="restore it from the CA's backup")
        try:
            register = Register.model_validate_json(text)
        except ValidationError as error:
            raise BadRequest(f"{path} is damaged", fix="restore it from the CA's backup") from error
        if register.v != Register().v:
            raise BadRequest(f"{path} was written by a newer Sterna", fix="upgrade Sterna on this machine")
        return register

    def stamp(self) -> tuple[int, int]:
        """Differs after each change of the register. Raises NotFound."""
        path = self._folder / REGISTER
        try:
            found = path.stat()
        except OSError as error:
            raise NotFound(f"{path}: {error.strerror}", fix="restore it from the CA's backup") from error
        return found.st_ino, found.st_mtime_ns

    def revoked_in(self, register: Register) -> RevokedList | None:
        """What hosts are handed; None while nothing was revoked."""
        number = revocation.number_of(register)
        if not number:
            return None
        pem = self._list_of(register).decode()
        return RevokedList(number=number, pem=pem, removed=revocation.removed_hosts(register))

    def invite(self, who: Identity, addresses: Iterable[str] | None) -> JoinToken:
        """A token for this identity, whose earlier ones end."""
        places = None if addresses is None else addresses_of(addresses, domains_of(self.certificate))
        secret = secrets.token_hex(join_token.SECRET_BYTES)
        invitation = Invitation(secret_hash=_hash(secret), expires=self._now() + join_token.VALID)
        with self._changing() as register:
            self._write(register, enrolment.invited(register, who, places, invitation))
        return JoinToken(host=who.name, fingerprint=self.fingerprint, secret=secret)

    def remove(self, who: Identity) -> None:
        """This identity takes part no more; its certificates are revoked."""
        with self._changing() as register:
            self._write(register, enrolment.removed(register, who, self._now()))

    def redeem(self, host: str, secret: str, request_pem: str) -> Signed:
        """The first certificate of the host that has this token."""
        who = identity(Kind.AGENT, host)
        request = read_request(request_pem)
        key = public_hash(request)
        with self._changing() as register:
            member = enrolment.redeemed(register, who, _hash(secret), key, self._now())
            return self._begin(register, member, request, key)

    def sign(self, request_pem: bytes, where: str) -> Signed:
        """The certificate for a request that an operator brings in a file. Its name says whose it is."""
        request = read_request(request_pem, where)
        name = requested_name(request)
        if not name:
            raise BadRequest(f"{where} names no host", fix="make it with `sterna agent request NAME`")
        key = public_hash(request)
        with self._changing() as register:
            member = enrolment.to_sign(register, identity(Kind.AGENT, name))
            return self._begin(register, member, request, key)

    def issue(self, who: Identity, addresses: Iterable[str] | None, request_pem: bytes) -> Signed:
        """A certificate for a controller or a server of the bus, enrolled with it. Again: the next one of the same
        enrolment."""
        request = read_request(request_pem)
        places = None if addresses is None else addresses_of(addresses, domains_of(self.certificate))
        with self._changing() as register:
            known = register.find(who)
            changed = enrolment.invited(register, who, places, None)
            member = _found(changed, who)
            if known is not None and known.joined:
                return self._next(changed, member, request)
            return self._begin(changed, member, request, public_hash(request))

    def renew(self, serial: str, request_pem: str) -> Signed:
        """Another certificate for the holder of the one with this serial number. That the caller holds it, he has
        proven."""
        request = read_request(request_pem)
        with self._changing() as register:
            return self._next(register, enrolment.renewable(register, serial, self._now()), request)

    def _begin(
        self, register: Register, member: Member, request: x509.CertificateSigningRequest, key: str
    ) -> Signed:
        number = enrolment.next_number(member, key)
        made, issued = self._certificate(member, number, request)
        self._write(register, enrolment.joined(register, member.identity, issued, key, self._now()))
        return made

    def _next(self, register: Register, member: Member, request: x509.CertificateSigningRequest) -> Signed:
        made, issued = self._certificate(member, member.number, request)
        self._write(register, enrolment.renewed(register, member.identity, issued, self._now()))
        return made

    def _certificate(
        self, member: Member, number: int, request: x509.CertificateSigningRequest
    ) -> tuple[Signed, Issued]:
        who, domains = member.identity, domains_of(self.certificate)
        wanted = certificates.wanted(who, number, member.addresses, domains, self._now())
        key = request.public_key()
        assert isinstance(key, EllipticCurvePublicKey)  # read_request has seen to it
        certificate = signed(wanted, key, self.certificate, self._key)
        serial = f"{certificate.serial_number:x}"
        issued = Issued(serial=serial, number=number, not_after=seen_in(certificate).not_after)
        return Signed(who, certificate, pem_of(certificate)), issued

    @contextmanager
    def _changing(self) -> Iterator[Register]:
        private_files.check_folder(self._folder)
        with private_files.alone(self._folder):
            yield self.register()

    def _write(self, before: Register, after: Register) -> None:
        """The list of revoked certificates first: it may say more than the register, never less."""
        register = revocation.numbered(before, after, self._now())
        private_files.write(self._folder / REVOKED, self._list_of(register), 0o644)
        private_files.write(self._folder / REGISTER, register.model_dump_json(indent=1).encode())

    def _list_of(self, register: Register) -> bytes:
        revoked, number = enrolment.revoked(register), revocation.number_of(register)
        return pem_of(revocation_list(revoked, number, self.certificate, self._key, self._now()))


def _refuse_another(folder: Path) -> None:
    """Raises Conflict where there is a CA, or a part of one."""
    if (folder / KEY).exists():
        fix = "use it, or name another folder; with a new CA every host has to join again"
        raise Conflict(f"there is a CA in {folder} already", fix=fix)
    if (folder / CERTIFICATE).exists():
        fix = f"restore {KEY}, or remove {folder} where `sterna ca init` was interrupted"
        raise Conflict(f"{folder} has the certificate of a CA, and not its key", fix=fix)


def _found(register: Register, who: Identity) -> Member:
    member = register.find(who)
    assert member is not None
    return member


def _hash(secret: str) -> str:
    """Of 128 random bits: they cannot be guessed, so a slow hash gains nothing."""
    return hashlib.sha256(secret.encode()).hexdigest()
