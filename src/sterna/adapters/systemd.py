"""What systemd is sent of a process's state: shown by `systemctl status`, whatever else is down.

Used by `bootstrap`. Outside systemd nothing is sent.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

from sterna.domain.trouble import Trouble
from sterna.ports.bus import Bus, BusState

LOOK_S = 1.0


def send(**fields: str) -> None:
    """One notification, as sd_notify(3) does it: `send(READY="1", STATUS="...")`. A failure is ignored."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    message = "\n".join(f"{key}={value}" for key, value in fields.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
            sending.setblocking(False)
            sending.sendto(message.encode(), name)
    except OSError:
        return


def in_words(state: BusState) -> str:
    """The line of `systemctl status`."""
    since = f"{state.since:%Y-%m-%d %H:%M:%S} UTC"
    if state.connected:
        return f"on the message bus since {since}"
    return f"WITHOUT the message bus since {since}: {state.why}".replace("\n", " ")


def _healthy() -> str:
    return ""


def _no_warning() -> Trouble | None:
    return None


async def show_state(
    bus: Bus, trouble: Callable[[], str] = _healthy, warning: Callable[[], Trouble | None] = _no_warning
) -> None:
    """Send readiness, then the bus's state, the process's own `trouble` ('' for none) and what it warns of whenever
    they change.

    Runs until it is cancelled."""
    shown = ""
    send(READY="1")
    while True:
        why = " ".join(trouble().split())
        warned = warning()
        ahead = f"WARNING: {' '.join(warned.why.split())}" if warned is not None else ""
        words = "; ".join(filter(None, (why and f"CANNOT MIGRATE: {why}", ahead, in_words(bus.state()))))
        if words != shown:
            send(STATUS=words)
            shown = words
        await asyncio.sleep(LOOK_S)
