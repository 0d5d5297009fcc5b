"""libvirtd reads its certificates, and the list of revoked ones, when it starts and on request.

It does not look at open connections again: those of removed hosts are closed by their names.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Collection

from sterna.kit.environment import clean_environment

ADMIN = {"libvirtd": "/run/libvirt/libvirt-admin-sock", "virtproxyd": "/run/libvirt/virtproxyd-admin-sock"}
"""The daemons that listen for TLS, and where each takes orders: one of them is there."""
_LIMIT_S = 5.0
"""Of each command."""
_CLOSING_S = 30.0
"""No connection is asked about after this: commands that hang one after the other would take without end."""
_NO_TLS = "no tls service found"
"""Of virNetServerUpdateTlsFiles: it does not listen for TLS, and has read no certificates."""
_GONE = "client not found"
"""VIR_ERR_NO_CLIENT, lower case: the connection has ended since the list. Where libvirtd says it in another
language, it is taken for a failure, and the next list does not have the client."""
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
    possible for all; '' where it was, or there are none. Blocking, for 5 s for each command and client."""
    for daemon in _running() if names else ():
        if why := _closed_at(daemon, names):
            return f"{daemon}: {why}"
    return ""


def _running() -> list[str]:
    return [daemon for daemon, socket in ADMIN.items() if os.path.exists(socket)]


def _closed_at(daemon: str, names: Collection[str]) -> str:
    """One client's failure does not keep the others' connections open. The first failure; '' for none."""
    began, first = time.monotonic(), ""
    try:
        clients = _TLS_CLIENT.findall(_told(daemon, "client-list", daemon))
    except _Failed as error:
        return str(error)
    for client in clients:
        if time.monotonic() - began > _CLOSING_S:
            return first or f"not all of {len(clients)} connections were looked at within {_CLOSING_S:g} s"
        try:
            said = _NAME.search(_told(daemon, "client-info", daemon, client))
            if said is not None and said[1] in names:
                _told(daemon, "client-disconnect", daemon, client)
        except _Failed as error:
            first = first or ("" if _GONE in str(error).lower() else str(error))
    return first


def _told(daemon: str, *words: str) -> str:
    """What it answers. Raises _Failed."""
    command = ("virt-admin", "--connect", f"{daemon}:///system", *words)
    plain = clean_environment({"LC_ALL": "C"})
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, env=plain)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Failed(str(error)) from error
    if done.returncode != 0:
        raise _Failed((done.stderr.strip() or f"exit code {done.returncode}")[-300:])
    return done.stdout
