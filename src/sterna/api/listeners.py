"""Where the API listens, and who may connect there, by the settings."""

from __future__ import annotations

import os
import socket
import ssl
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import structlog

from sterna.api.access import AccessRules
from sterna.api.peers import PeerRoles, group_id
from sterna.config import ControllerSettings
from sterna.config.access import AccessSettings, PeerRole
from sterna.config.bus import BusTls, IdentitySettings
from sterna.controller.intents.external_users import ExternalUsers
from sterna.controller.intents.users import FixedToken
from sterna.domain.access import UserRole
from sterna.domain.errors import BadRequest, Conflict, Permanent
from sterna.domain.trust.identities import CONTROLLER_SERVICE

log = structlog.get_logger(__name__)

KNOCK_S = 1.0
"""A live listener on a Unix socket accepts a connection at once."""
BACKLOG = 2048
"""As uvicorn's: connections that wait to be accepted."""


def access_rules_of(settings: AccessSettings, external_users: ExternalUsers | None = None) -> AccessRules:
    """Who may connect."""
    tokens = tuple(FixedToken(name=t.name, role=t.role, digest=t.sha256) for t in settings.tokens)
    peers = PeerRoles(_role(settings.root_role), _role(settings.group_role), group_id(settings.group))
    return AccessRules(
        tokens=tokens,
        names=frozenset(name.lower() for name in settings.names),
        peers=peers,
        external_users=external_users,
    )


def _role(setting: PeerRole) -> UserRole | None:
    return None if setting == "none" else UserRole(setting)


class OwnTls:
    """TLS with this controller's own certificate, which is replaced while clients connect."""

    def __init__(self, cert_file: Path, key_file: Path | None) -> None:
        self._files = cert_file, key_file
        self.present = self.made()

    def made(self) -> ssl.SSLContext:
        """With what the files have now. Raises BadRequest."""
        return _context(*self._files, "[identity]")

    def read_again(self) -> None:
        """Clients to come are shown what the files have now. From any thread. Raises BadRequest where they will not
        do: then the present ones stay."""
        self.present = self.made()


def own_tls(identity: IdentitySettings) -> OwnTls | None:
    """TLS with this controller's own certificate; None where it has none. Raises as `tls_of`."""
    files = identity.bus_tls(BusTls())
    return OwnTls(files.cert_file, files.key_file) if files.cert_file is not None else None


def tls_of(settings: AccessSettings, own: OwnTls | None = None) -> ssl.SSLContext | None:
    """What TLS is spoken with; None for plain TCP. `own`: with this controller's own certificate, for hosts, and
    for everybody where the settings name no other. Raises BadRequest for files that will not do."""
    if settings.cert_file is not None:
        tls = _context(settings.cert_file, settings.key_file, "[access]")
    elif own is not None and not settings.insecure:
        tls = own.made()
    else:
        return None
    if own is not None:
        tls.sni_callback = partial(_choose, own, settings.cert_file is None)
    return tls


def _context(cert_file: Path, key_file: Path | None, where: str) -> ssl.SSLContext:
    try:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(cert_file, key_file)
    except OSError as error:  # ssl's own errors are OSErrors
        raise BadRequest(
            f"TLS cannot be set up with {cert_file}: {error}", fix=f"correct {where} in the settings"
        ) from error
    return tls


def _choose(own: OwnTls, always: bool, connection: ssl.SSLObject, name: str | None, _given: ssl.SSLContext) -> None:
    """A host asks for a controller, whatever its address is."""
    if always or name == CONTROLLER_SERVICE:
        connection.context = own.present


@contextmanager
def listening(settings: ControllerSettings, fd: int | None) -> Iterator[list[socket.socket]]:
    """The sockets to serve on: the one that is given, or those of the settings.

    Raises BadRequest for settings that make no sense, Conflict where another process listens, Permanent where none
    can.
    """
    path = Path(settings.access.socket) if settings.access.socket and fd is None else None
    sockets = [_inherited(fd)] if fd is not None else []
    try:
        if settings.listen and fd is None:
            sockets += _tcp_sockets(settings.listen)
        _check_encrypted(sockets, settings)
        if path is not None:
            sockets.append(_unix_socket(path, settings.access.group))
        if not sockets:
            raise BadRequest("the API has no address to listen on", fix="set `listen`, or `socket` in [access]")
        yield sockets
    finally:
        if path is not None and any(one.family == socket.AF_UNIX for one in sockets):
            path.unlink(missing_ok=True)
        for one in sockets:
            one.close()


def _inherited(fd: int) -> socket.socket:
    try:
        return socket.socket(fileno=fd)
    except OSError as error:
        fix = "open the socket in the process that starts this one, and leave it open (systemd: socket activation)"
        raise BadRequest(f"--fd {fd} is not a socket: {error.strerror}", fix=fix) from error


def _tcp_sockets(listen: str) -> list[socket.socket]:
    host, _, port = listen.rpartition(":")
    made: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for address in dict.fromkeys((family, where) for family, _, _, _, where in found):
            made.append(socket.create_server(address[1][:2], family=address[0], backlog=BACKLOG))
    except OSError as error:
        for one in made:
            one.close()
        raise Permanent(
            f"the controller cannot listen on {listen}: {error.strerror or error}",
            fix="correct `listen` in the settings, or stop the program that uses the port",
        ) from error
    return made


def _check_encrypted(sockets: Sequence[socket.socket], settings: ControllerSettings) -> None:
    """Raises BadRequest for an address that others reach, where tokens would be readable on the way."""
    access = settings.access
    if access.cert_file is not None or (settings.identity.enrol and not access.insecure):
        return
    for one in sockets:
        if one.family == socket.AF_UNIX or ip_address(one.getsockname()[0].partition("%")[0]).is_loopback:
            continue
        where = one.getsockname()[0]
        if not access.insecure:
            raise BadRequest(
                f"the API would be served without TLS on {where}: anyone who can read the traffic could read "
                "tokens",
                fix="enrol this controller, set `cert_file` in [access], or accept it with `insecure = true`; or "
                "listen on 127.0.0.1",
            )
        log.warning("the API is served WITHOUT TLS: tokens can be read in the network", address=where)


def _unix_socket(path: Path, group: str) -> socket.socket:
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True)
            path.parent.chmod(0o755)
        _clear(path)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.bind(str(path))  # closed to others until it is opened to the group
        _open_to(path, group)
        made.listen(BACKLOG)
    except OSError as error:
        fix = "correct `socket` in [access] of the settings (systemd: RuntimeDirectory=sterna creates /run/sterna)"
        raise Permanent(f"the controller cannot listen on {path}: {error.strerror or error}", fix=fix) from error
    return made


def _clear(path: Path) -> None:
    """Remove a socket that a dead process has left. Raises Conflict where a process listens there, OSError."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise Conflict(f"{path} exists and is not a socket", fix="set another path for `socket` in [access]")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knocking:
        knocking.settimeout(KNOCK_S)
        try:
            knocking.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except (BlockingIOError, TimeoutError) as error:  # it hangs, and accepts no more
            fix = "check why the other controller hangs, or stop it"
            raise Conflict(f"another controller listens on {path} and does not answer", fix=fix) from error
    raise Conflict(f"another controller listens on {path}", fix="stop it, or set another `socket` for this one")


def _open_to(path: Path, group: str) -> None:
    path.chmod(0o600)
    gid = group_id(group)
    if gid is None:
        log.info("only root and this user may use the API's socket: the group does not exist", group=group)
        return
    try:
        os.chown(path, -1, gid)
    except PermissionError:
        log.warning("the API's socket is not open to the group: this user is not a member", group=group)
        return
    path.chmod(0o660)
