"""A certificate of this process's own, and who signs it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from sterna.domain.journal import Migration
from sterna.domain.trust.enrolment import EnrolledHost
from sterna.domain.trust.joining import JoinAnswer, JoinRequest, RenewalRequest
from sterna.domain.trust.revocation import RevokedList


class CertificateIssuer(Protocol):
    """Where hosts join and renew their certificates: the CA, or a client of it.

    Raises Conflict for a token or a certificate that cannot be used, BadRequest for a request that cannot be read,
    Temporary where the desk is away or busy.
    """

    async def ca(self) -> str:
        """The CA's certificate, PEM. It is not proven yet to be the right one."""

    async def join(self, request: JoinRequest, ca: str) -> JoinAnswer:
        """The first certificate. `ca`: the one whose fingerprint was compared; the server must have a certificate
        of it."""

    async def renew(self, request: RenewalRequest, ca: str) -> JoinAnswer:
        """The next certificate, as `join`."""


class Enrolment(Protocol):
    """Which hosts are enrolled, as the CA says."""

    def known(self) -> Mapping[str, EnrolledHost]:
        """All hosts by name, removed ones too, as of some seconds ago. Waits for nothing."""

    def revoked(self) -> RevokedList | None:
        """The list of revoked certificates, as old as that; None while nothing was revoked."""

    async def hosts(self) -> Mapping[str, EnrolledHost]:
        """The same, as of now. Raises Temporary where the CA cannot be asked."""


class PermitCheck(Protocol):
    """What can be known of who has asked for a migration."""

    async def against(self, migration: Migration) -> str:
        """Why no controller has, as far as its permit says; '' where one has. Raises Temporary."""


class Permits(PermitCheck, Protocol):
    """A controller's own signature, and what others of its CA have signed."""

    async def issue(self, migration: Migration) -> str:
        """A permit for a migration that its source is about to be asked for. Raises SternaError."""


class RevokedHere(Protocol):
    """The list of revoked certificates, where the services of this host look for it."""

    async def take(self, given: RevokedList) -> int:
        """Use it from now on, and close the connections of removed hosts; its number. May be repeated.

        Raises BadRequest for a list that is not of this host's CA, Conflict for one that is older than the one that
        is here, Temporary where a service does not take it now.
        """


class OwnIdentity(Protocol):
    """The key and the certificate of this host, in files. Raises BadRequest where they cannot be used."""

    def request(self, name: str) -> str:
        """A request with a new key, which stays here; the same one until it is answered."""

    def accept(self, answer: JoinAnswer, name: str, fingerprint: str, now: datetime) -> None:
        """Use this certificate from now on. `fingerprint`: what the CA's own must have. Raises BadRequest where the
        answer is not for our request."""

    def renewal(self) -> RenewalRequest:
        """A request for the next certificate, signed with the present key."""

    def name(self) -> str:
        """The host's name, as the present certificate has it."""

    def ca(self) -> str:
        """The certificate of the CA that is trusted, PEM."""

    def fingerprint(self) -> str:
        """Of the CA that is trusted."""

    def validity(self) -> tuple[datetime, datetime]:
        """From when until when the present certificate is valid."""
