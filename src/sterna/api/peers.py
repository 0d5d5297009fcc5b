"""The user at the other end of a Unix socket, as the kernel reports it, and its role by the settings."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from sterna.domain.access import HOW_TO_GET_IN, Actor, UserRole
from sterna.domain.errors import Unauthenticated

SO_PEERGROUPS = 59
"""Linux 4.13; the socket module does not name it."""
_CREDENTIALS = struct.Struct("3i")
_MOST_GROUPS = 256
"""Python asks the kernel for 1024 bytes at most. Of a user in more groups, only the main group is seen."""
_PASSWD, _GROUP = Path("/etc/passwd"), Path("/etc/group")


@dataclass(frozen=True)
class Peer:
    """The process that has connected, as it was when it did."""

    pid: int
    uid: int
    gids: frozenset[int]

    def __str__(self) -> str:
        return f"process {self.pid} here"


@dataclass(frozen=True)
class PeerRoles:
    """What users of this machine may do. None: nothing without a token."""

    root: UserRole | None = UserRole.ADMIN
    """Root, and the user the controller runs as: both can read its database anyway."""
    group: UserRole | None = UserRole.OPERATOR
    gid: int | None = None
    """The group whose members have that role."""

    def actor(self, peer: Peer | None) -> Actor:
        """Raises Unauthenticated for a user who is neither, or who does not use a Unix socket."""
        if peer is None:
            raise Unauthenticated("no token was sent", fix=HOW_TO_GET_IN)
        name = f"user:{user_name(peer.uid)}"
        if self.root is not None and peer.uid in (0, os.geteuid()):
            return Actor(name=name, role=self.root)
        if self.group is not None and self.gid is not None and self.gid in peer.gids:
            return Actor(name=name, role=self.group)
        raise Unauthenticated(f"{name} may not use this API without a token", fix=_GET_IN)


_GET_IN = f"{HOW_TO_GET_IN}; or become a member of the group in `[access] group`, and use the Unix socket"


def peer_of(connected: socket.socket) -> Peer | None:
    """The user who has connected; None where it is not a Unix socket."""
    if connected.family != socket.AF_UNIX:
        return None
    found = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(found)
    return Peer(pid=pid, uid=uid, gids=_groups(connected) | {gid})


def _groups(connected: socket.socket) -> frozenset[int]:
    try:
        raw = connected.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 4 * _MOST_GROUPS)
    except OSError:  # an older kernel, or too many
        return frozenset()
    return frozenset(struct.unpack(f"{len(raw) // 4}I", raw))


def user_name(uid: int) -> str:
    """By /etc/passwd alone: a directory service may hang. The number, for a user that it does not have."""
    return next((f[0] for f in _lines(_PASSWD) if f[2] == str(uid)), str(uid))


def group_id(name: str) -> int | None:
    """By /etc/group alone; None for a group that is not in it."""
    found = (f[2] for f in _lines(_GROUP) if f[0] == name)
    return next((int(gid) for gid in found if gid.isdecimal()), None)


def _lines(path: Path) -> list[list[str]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [fields for line in lines if len(fields := line.split(":")) > 2]
