"""A CA in a folder, a clock for it, and hosts that join."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.desk import LocalDesk
from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.identity.x509 import key_pem, new_key, new_request, pem_of
from sterna.domain.errors import Unreachable
from sterna.domain.trust.identities import Identity, Kind
from sterna.domain.trust.joining import JoinAnswer, JoinRequest, RenewalRequest

HOST1, HOST2 = (Identity(kind=Kind.AGENT, name=n) for n in ("host1", "host2"))
C1 = Identity(kind=Kind.CONTROLLER, name="c1")


class Calendar:
    """The CA's clock, which tests move. It begins now: OpenSSL looks at the real one."""

    def __init__(self) -> None:
        self.at = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.at

    def now(self) -> datetime:
        return self.at

    def monotonic_ms(self) -> float:
        return self.at.timestamp() * 1000

    async def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def request_of(name: str) -> bytes:
    """A request with a key that nobody keeps."""
    return pem_of(new_request(new_key(), name))


def join(
    authority: Authority, who: Identity, folder: Path, addresses: tuple[str, ...] = ("127.0.0.1",)
) -> OwnFiles:
    """A host that has joined with a token."""
    token = authority.invite(who, ["127.0.0.1"])
    own = OwnFiles(folder)
    made = authority.redeem(token.host, token.secret, own.request(who.name))
    answer = JoinAnswer(certificate=made.pem.decode(), ca=authority.pem.decode())
    own.accept(
        answer, who.name, token.fingerprint, authority.certificate.not_valid_before_utc + timedelta(minutes=6)
    )
    return own


def controller(authority: Authority, folder: Path, *addresses: str) -> OwnFiles:
    """C1, with another certificate of its enrolment each time."""
    own = OwnFiles(folder, Kind.CONTROLLER)
    made = authority.issue(C1, addresses, own.request(C1.name).encode())
    answer = JoinAnswer(certificate=made.pem.decode(), ca=authority.pem.decode())
    own.accept(answer, C1.name, authority.fingerprint, datetime.now(UTC))
    return own


def issue(authority: Authority, who: Identity, folder: Path, *addresses: str) -> tuple[Path, Path]:
    """The files of a controller or a server: certificate and key."""
    key = new_key()
    made = authority.issue(who, addresses, pem_of(new_request(key, who.name)))
    certificate, private = folder / f"{who.name}.crt", folder / f"{who.name}.key"
    certificate.write_bytes(made.pem)
    private.write_bytes(key_pem(key))
    return certificate, private


def loads(own: OwnFiles) -> None:
    """OpenSSL takes the pair: raises where the key is another certificate's."""
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(own.certificate_file, own.key_file)


class Desk(LocalDesk):
    """The CA's desk, and what it was asked."""

    def __init__(self, authority: Authority) -> None:
        super().__init__(authority)
        self.asked: list[object] = []
        self.away = False
        self.loses_answers = False

    async def join(self, request: JoinRequest, ca: str) -> JoinAnswer:
        self.asked.append(request)
        answer = await super().join(request, ca)
        if self.loses_answers:
            raise Unreachable("the answer was lost")
        return answer

    async def renew(self, request: RenewalRequest, ca: str) -> JoinAnswer:
        self.asked.append(request)
        if self.away:
            raise Unreachable("the desk is away")
        return await super().renew(request, ca)
