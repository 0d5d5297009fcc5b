"""libvirtd reads its certificates when it starts, and on request."""

from __future__ import annotations

import os
import subprocess

ADMIN = {"libvirtd": "/run/libvirt/libvirt-admin-sock", "virtproxyd": "/run/libvirt/virtproxyd-admin-sock"}
"""The daemons that listen for TLS, and where each takes orders: one of them is there."""
_LIMIT_S = 5.0
_NO_TLS = "no tls service found"
"""Of virNetServerUpdateTlsFiles: it does not listen for TLS, and has read no certificates."""


def read_again() -> str:
    """Have libvirtd read its certificates again; connections go on. Why that was not possible; '' where it was, or
    no daemon runs that has read some. Blocking, for 10 s at most."""
    for daemon, socket in ADMIN.items():
        if os.path.exists(socket) and (why := _told(daemon)) and _NO_TLS not in why:
            return f"{daemon}: {why}"
    return ""


def _told(daemon: str) -> str:
    command = ("virt-admin", "--connect", f"{daemon}:///system", "server-update-tls", daemon)
    plain = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, env=plain)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == 0 else (done.stderr.strip() or f"exit code {done.returncode}")[-300:]
