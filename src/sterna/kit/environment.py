"""The environment of the programs that Sterna starts: what they need, and no passwords of Sterna's (`STERNA_*`)."""

from __future__ import annotations

import os
from collections.abc import Mapping

_USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PASSED_ON = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "TZ",
    "XDG_RUNTIME_DIR",
    "DBUS_SYSTEM_BUS_ADDRESS",  # systemctl, as the command that reloads nats-server
    "LD_LIBRARY_PATH",
    "QEMU_MODULE_DIR",
    "TGT_IPC_SOCKET",
)
_OF_PYTHON = ("PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE")


def clean_environment(more: Mapping[str, str] | None = None, *, python: bool = False) -> dict[str, str]:
    """For one child. `more`: what it needs besides. `python`: it runs this Python, and finds what this process
    finds. Messages are in English, so that they can be recognised."""
    names = _PASSED_ON + _OF_PYTHON if python else _PASSED_ON
    inherited = {name: os.environ[name] for name in names if name in os.environ}
    return {"PATH": _USUAL_PATH, "LC_ALL": "C.UTF-8"} | inherited | dict(more or {})
