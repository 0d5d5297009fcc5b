"""Certificates: whether a process has one already, and how it gets one."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from sterna.adapters.identity.authority import CERTIFICATE as CA_CERTIFICATE
from sterna.adapters.identity.authority import KEY as CA_KEY
from sterna.adapters.identity.authority import Authority
from sterna.adapters.identity.https_desk import HttpsDesk
from sterna.adapters.identity.own import OwnFiles
from sterna.adapters.identity.pki_files import PkiFiles
from sterna.adapters.identity.x509 import fingerprint, read_certificates
from sterna.domain.errors import BadRequest, NotFound
from sterna.domain.trust.identities import Identity, Kind
from sterna.domain.trust.join_token import JoinToken, read
from sterna.domain.trust.joining import JoinAnswer
from sterna.joining import join as joined
from sterna.kit.clock import SystemClock
from sterna.setup.options import Enrol
from sterna.setup.settings_file import SettingsFile

LONGEST_TOKEN = 4096


def enrol_wanted(given: Enrol | None, file: SettingsFile, *, otherwise: bool) -> str:
    """Where the certificate comes from. Where neither the command nor its file says it, Sterna's own CA is asked
    only if `otherwise`."""
    known = file.get("identity", "enrol")
    if given is not None:
        return "" if given is Enrol.NONE else given.value
    if known is not None:
        return str(known)
    return "sterna" if otherwise else ""


def enrolled_as(folder: Path, kind: Kind) -> str:
    """The name in the certificate that the folder has, where that is valid now; '' where there is none. Raises
    BadRequest where the folder is used by a process of another kind."""
    own = OwnFiles(folder, kind)
    own.check_kind()
    try:
        begin, end = own.validity()
        return own.name() if begin <= datetime.now(UTC) < end else ""
    except NotFound:
        return ""


def has_libvirt_files(folder: Path) -> bool:
    """Were copies for libvirt and QEMU made from this certificate?"""
    return PkiFiles(folder).wanted


def libvirt_files(folder: Path) -> PkiFiles:
    """These copies."""
    return PkiFiles(folder)


def token_in(file: Path) -> JoinToken:
    """The token in this file; `-` is standard input. Raises BadRequest."""
    if str(file) == "-":
        return read(sys.stdin.buffer.readline(LONGEST_TOKEN).decode(errors="replace"))
    try:
        with file.open("rb") as opened:
            return read(opened.read(LONGEST_TOKEN).decode(errors="replace"))
    except OSError as error:
        fix = "give the file with the output of `sterna host add`, or - for standard input"
        raise BadRequest(f"{file} cannot be read: {error.strerror}", fix=fix) from error


def join(folder: Path, token: JoinToken, server: str) -> None:
    """Get this host's certificate. May be repeated with the same token. Raises SternaError."""

    def fingerprint_of(pem: str) -> str:
        return fingerprint(read_certificates(pem, server)[0])

    asyncio.run(joined(token, HttpsDesk(server), OwnFiles(folder), SystemClock(), fingerprint_of))


def authority_in(folder: Path) -> Authority | None:
    """The CA in this folder; None where none was made there. Raises BadRequest for one that cannot be used."""
    try:
        return Authority.open(folder)
    except NotFound:
        if (folder / CA_CERTIFICATE).exists() or (folder / CA_KEY).exists():
            raise
        return None


def is_of(folder: Path, kind: Kind, name: str, authority: Authority) -> bool:
    """Has the folder a valid certificate of this name that this CA has made and not revoked?"""
    if enrolled_as(folder, kind) != name or OwnFiles(folder, kind).fingerprint() != authority.fingerprint:
        return False
    member = authority.register().find(Identity(kind=kind, name=name))
    return member is not None and member.joined


def issue(authority: Authority, who: Identity, addresses: list[str], folder: Path) -> None:
    """Make key and certificate of a controller or a server of the bus in this folder."""
    own = OwnFiles(folder, who.kind)
    made = authority.issue(who, addresses, own.request(who.name).encode())
    answer = JoinAnswer(certificate=made.pem.decode(), ca=authority.pem.decode())
    own.accept(answer, who.name, authority.fingerprint, datetime.now(UTC))


def folder_of(path: Path, user: str, mode: int = 0o700) -> None:
    """Make a folder of this user's, where it is not there. Raises BadRequest."""
    try:
        if path.is_dir():
            return
        for parent in reversed([one for one in path.parents if not one.exists()]):
            parent.mkdir(mode=0o755)
            parent.chmod(0o755)
        path.mkdir(mode=mode)
        path.chmod(mode)
        if user != "root":
            shutil.chown(path, user)
            os.chown(path, -1, pwd.getpwnam(user).pw_gid)
    except (OSError, LookupError) as error:
        raise BadRequest(f"{path} cannot be created for {user}: {error}", fix="run this as root") from error


def is_user(name: str) -> bool:
    """Is there such a user here?"""
    try:
        return bool(pwd.getpwnam(name))
    except KeyError:
        return False
