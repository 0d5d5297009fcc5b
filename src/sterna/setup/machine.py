"""The machine that is set up: its systemd, a terminal, other installed software."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from sterna.domain.errors import Permanent
from sterna.kit.command import Finished, run

LOOK_S = 10.0
START_S = 150.0
"""systemd gives up a start after 90 s."""
UNIT_FOLDER = Path("/etc/systemd/system")
"""Where an administrator's units are."""
SYSTEMD = Path("/run/systemd/system")
OVS_SOCKET = Path("/run/openvswitch/db.sock")


class Unit(NamedTuple):
    """A unit of systemd."""

    there: bool = False
    enabled: bool = False
    active: bool = False
    text: str = ""
    """Its files."""

    @property
    def user(self) -> str:
        """Whom it runs as."""
        found = re.findall(r"^\s*User\s*=\s*(\S+)\s*$", self.text, re.MULTILINE)
        return found[-1] if found else "root"

    @property
    def dynamic(self) -> bool:
        """Is its user made when it starts?"""
        found: list[str] = re.findall(r"^\s*DynamicUser\s*=\s*(\S+)\s*$", self.text, re.MULTILINE)
        return bool(found) and found[-1].lower() in ("yes", "true", "1", "on")


class Units(Protocol):
    """systemd. Methods raise Permanent or Temporary where that fails."""

    def present(self) -> bool:
        """Does systemd run here?"""
        ...

    def look(self, name: str) -> Unit:
        """What is known of a unit."""
        ...

    def enable(self, name: str) -> None:
        """Start it at each boot."""
        ...

    def restart(self, name: str) -> None:
        """Start it, or restart it where it runs. Returns when it is up."""
        ...

    def read_again(self) -> None:
        """Units have been written."""
        ...


class Systemd:
    """Implements Units with systemctl."""

    def present(self) -> bool:
        """As sd_booted does."""
        return SYSTEMD.is_dir() and shutil.which("systemctl") is not None

    def look(self, name: str) -> Unit:
        """By three questions."""
        text = _asked("systemctl", "cat", "--no-pager", name)
        if text.code != 0:
            return Unit()
        enabled = _asked("systemctl", "is-enabled", name).out.strip() == "enabled"
        active = _asked("systemctl", "is-active", name).out.strip() in ("active", "activating", "reloading")
        return Unit(True, enabled, active, text.out)

    def enable(self, name: str) -> None:
        """See Units."""
        _must("systemctl", "enable", name, fix=f"see `systemctl status {name}`")

    def restart(self, name: str) -> None:
        """See Units."""
        _must("systemctl", "restart", name, fix=f"find out why: journalctl -u {name} -n 50", limit_s=START_S)

    def read_again(self) -> None:
        """See Units."""
        _must("systemctl", "daemon-reload", fix="see `systemctl status`")


@dataclass(frozen=True)
class Machine:
    """This one."""

    units: Units = field(default_factory=Systemd)
    has_terminal: bool = False
    host_name: str = ""
    """Its own, without the domain."""
    has_ovs: bool = False
    nats_server: str | None = None
    """The program, where it is installed."""


def this_machine() -> Machine:
    """As it is now."""
    return Machine(
        has_terminal=sys.stdin.isatty(),
        host_name=socket.gethostname().partition(".")[0],
        has_ovs=OVS_SOCKET.exists(),
        nats_server=shutil.which("nats-server", path="/usr/sbin:/usr/local/bin:/usr/bin:/usr/local/sbin"),
    )


def checked_by(argv: Sequence[str]) -> str:
    """What a program says against a file; '' for nothing. Raises Temporary, or Permanent where it is not there."""
    done = _asked(*argv)
    return "" if done.code == 0 else done.words


def _asked(*argv: str, limit_s: float = LOOK_S) -> Finished:
    return asyncio.run(run(argv, limit_s=limit_s))


def _must(*argv: str, fix: str, limit_s: float = LOOK_S) -> None:
    done = _asked(*argv, limit_s=limit_s)
    if done.code != 0:
        raise Permanent(f"`{' '.join(argv)}` failed: {done.words}", fix=fix)
