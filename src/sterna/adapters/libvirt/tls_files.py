"""libvirtd reads its certificates, and the list of revoked ones, when it starts and on request.

It does not look at open connections again: those of removed hosts are closed by their names.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection

ADMIN = {"libvirtd": "/run/libvirt/libvirt-admin-sock", "virtproxyd": "/run/libvirt/virtproxyd-admin-sock"}
"""The daemons that listen for TLS, and where each takes orders: one of them is there."""
_LIMIT_S = 5.0
_NO_TLS = "no tls service found"
"""Of virNetServerUpdateTlsFiles: it does not listen for TLS, and has read no certificates."""
_TLS_CLIENT = re.compile(r"^\s*(\d+)\s+tls\s", re.MULTILINE)
_NAME = re.compile(r"^tls_x509_dname\s*:\s*(.*?)\s*$", re.MULTILINE)


class _Failed(Exception):
    """What virt-admin said."""


def read_again() -> str:
    """Have libvirtd read its certificates again; connections go on. Why that was not possible; '' where it was, or
    no daemon runs that has read some. Blocking, for 10 s at most."""
    for daemon in _running():
        try:
            _told(daemon, "server-update-tls", daemon)
        except _Failed as error:
            if _NO_TLS not in str(error):
                return f"{daemon}: {error}"
    return ""


def close_connections(names: Collection[str]) -> str:
    """Close the connections of clients whose certificates have these distinguished names. Why that was not
    possible; '' where it was, or there are none. Blocking, for 5 s for each command and client."""
    for daemon in _running() if names else ():
        try:
            for client in _clients_of(daemon, names):
                _told(daemon, "client-disconnect", daemon, client)
        except _Failed as error:
            return f"{daemon}: {error}"
    return ""


def _running() -> list[str]:
    return [daemon for daemon, socket in ADMIN.items() if os.path.exists(socket)]


def _clients_of(daemon: str, names: Collection[str]) -> list[str]:
    found = []
    for client in _TLS_CLIENT.findall(_told(daemon, "client-list", daemon)):
        try:
            said = _NAME.search(_told(daemon, "client-info", daemon, client))
        except _Failed:  # it has gone
            continue
        if said is not None and said[1] in names:
            found.append(client)
    return found


def _told(daemon: str, *words: str) -> str:
    """What it answers. Raises _Failed."""
    command = ("virt-admin", "--connect", f"{daemon}:///system", *words)
    plain = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, env=plain)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Failed(str(error)) from error
    if done.returncode != 0:
        raise _Failed((done.stderr.strip() or f"exit code {done.returncode}")[-300:])
    return done.stdout
