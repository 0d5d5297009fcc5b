"""A controller on the CA's machine: hosts join there, under the names that its certificate has."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

import structlog

from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.identity.x509 import domains_of
from sterna.bootstrap.process import DISK_FIX, warn_when_slow
from sterna.config import ControllerSettings
from sterna.domain.addresses import bare
from sterna.domain.errors import BadRequest
from sterna.domain.trust.enrolment import ADD
from sterna.domain.trust.identities import Identity, Kind, is_ip, may_be_signed
from sterna.domain.trust.joining import JoinAnswer
from sterna.kit.clock import SystemClock

log = structlog.get_logger(__name__)


def authority_of(settings: ControllerSettings) -> Authority | None:
    """The CA that these settings name; None where they name none. This controller's own certificate gets the names
    that clients use, where it lacks some.

    Raises NotFound or BadRequest for a CA that cannot be used, or that this controller's certificate is not of.
    """
    folder = settings.access.ca_folder
    if folder is None:
        return None
    with warn_when_slow(f"the CA's folder {folder}, or {settings.identity.folder},", DISK_FIX):
        authority = Authority.open(folder)
        own = OwnFiles(settings.identity.folder, Kind.CONTROLLER)
        who = _enrolled(authority, own, folder)
        if settings.access.cert_file is None:
            _cover(authority, own, who, names_of(settings))
    return authority


def names_of(settings: ControllerSettings) -> tuple[str, ...]:
    """Under which clients reach the API over TCP, as far as the settings say."""
    host = bare(settings.listen.rpartition(":")[0])
    place = [host] if is_ip(host) and not ip_address(host).is_unspecified else []
    return tuple(dict.fromkeys([*place, *settings.access.names]))


def _enrolled(authority: Authority, own: OwnFiles, folder: Path) -> Identity:
    """This controller. Raises BadRequest where it is none of this CA's."""
    who = Identity(kind=Kind.CONTROLLER, name=own.name())
    member = authority.register().find(who)
    if own.fingerprint() == authority.fingerprint and member is not None and member.joined:
        return who
    raise BadRequest(
        f"{own.certificate_file} is not a valid certificate of the CA in {folder}",
        fix=f"issue another one: {ADD[Kind.CONTROLLER].format(who.name)}",
    )


def _cover(authority: Authority, own: OwnFiles, who: Identity, names: Iterable[str]) -> None:
    missing = own.lacks(names)
    domains = domains_of(authority.certificate)
    signable = [name for name in missing if may_be_signed(name, domains)]
    if signable:
        member = authority.register().find(who)
        before = member.addresses if member is not None else ()
        made = authority.issue(who, [*before, *signable], own.request(who.name).encode())
        answer = JoinAnswer(certificate=made.pem.decode(), ca=authority.pem.decode())
        own.accept(answer, who.name, authority.fingerprint, SystemClock().now())
        log.info("this controller's certificate was issued for more names", names=signable)
    others = [name for name in missing if name not in signable]
    if others:
        fix = "set `cert_file` in [access] to a certificate that has them; or let clients use an address"
        log.warning("the CA may not sign these names of the API: clients will refuse them", names=others, fix=fix)
