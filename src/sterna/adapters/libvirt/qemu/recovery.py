"""Joining the two halves of a guest again after its stream broke in post-copy.

libvirt's own way (VIR_MIGRATE_POSTCOPY_RESUME) is not used. The destination libvirtd of libvirt 11.3 crashes on it,
and any libvirt refuses it while one of the two QEMUs has not noticed yet that the link is gone
(docs/lab-notebook/field-notes.md). So QEMU itself is asked. libvirt follows QEMU's events, and finishes the
migration when all pages have arrived.

On the source QEMU is asked through libvirt. On the destination libvirt blocks all requests while a guest arrives.
So a guest that may be switched to post-copy gets a second monitor, a socket beside libvirt's own. `keeper.py` holds
it open. It is removed when the guest has arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from sterna.adapters.libvirt.qemu.conf import QEMU_CONF
from sterna.adapters.libvirt.qemu.keeper import ANSWER_S, CONNECT_S, HELD
from sterna.adapters.libvirt.qemu.monitor import Refused, ask
from sterna.adapters.libvirt.qemu.probe import stream_ports
from sterna.adapters.libvirt.session.connection import Connect
from sterna.adapters.libvirt.xml.metadata import Element
from sterna.adapters.libvirt.xml.recovery_monitor import FOLDER, monitor_socket
from sterna.domain.addresses import in_uri
from sterna.domain.errors import Conflict, Permanent, Unreachable
from sterna.domain.untrusted import STREAM_PORTS
from sterna.kit.environment import clean_environment
from sterna.kit.names import Numeric, family_of, resolved

_PAUSED = "postcopy-paused"
_ON_ITS_WAY = ("postcopy-active", "postcopy-recover", "postcopy-recover-setup")
"""QEMU's names for a migration that is, or is about to be, joined."""
_NOBODY = "127.0.0.1"
"""The address at which QEMU is asked to listen, only to learn whether it waits for memory."""
_GIVEN_UP = ("failed", "cancelled")
_SETTLE_S = 5.0
_LOOK_S = 0.05
_SETTING = "`address` or `more_addresses` of [migration]"
_SLACK_S = 5.0
"""The keeper keeps its own limits. It has so much more time: to start on a busy host, or it hangs."""


def _held(uuid: str) -> Path:
    """Where `keeper.py` takes commands for it."""
    return FOLDER / f"sterna-{uuid}.held"


# ---------------------------------------------------------------- destination


async def hold_monitor(uuid: str) -> None:
    """Have the guest's second monitor opened and held; returns once it is. A guest without one is nothing.

    Raises Unreachable where it does not open, in 10 to 15 s.
    """
    if not monitor_socket(uuid).exists() or await _ask_keeper(uuid, "x-is-anybody-there") is not None:
        return
    argv = [
        sys.executable,
        "-m",
        "sterna.adapters.libvirt.qemu.keeper",
        str(monitor_socket(uuid)),
        str(_held(uuid)),
    ]
    keeper = await asyncio.create_subprocess_exec(
        *argv,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=DEVNULL,
        start_new_session=True,
        env=clean_environment(python=True),
    )
    assert keeper.stdout is not None
    line = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CONNECT_S + _SLACK_S):
            line = await keeper.stdout.readline()
    if line != HELD:  # it ended, or hangs
        with contextlib.suppress(ProcessLookupError):
            keeper.kill()
        raise Unreachable("the guest's second monitor does not open: its QEMU is busy, or somebody else holds it")


def remove_monitor(uuid: str) -> None:
    """Take both sockets away; the process that holds the monitor ends within a second. Missing is not an error."""
    _held(uuid).unlink(missing_ok=True)
    monitor_socket(uuid).unlink(missing_ok=True)


async def listen_again(uuid: str, address: str) -> str:
    """Wait for the source's half on a free port of `address`; the URI.

    QEMU gets an IP address: it would resolve a name in the thread that serves its guest.

    Raises Conflict where the guest has no second monitor, Permanent where its QEMU refuses or the address has no
    port for it, Unreachable where no process holds the monitor and it does not open, or the resolver does not
    answer.
    """
    if not monitor_socket(uuid).exists():
        raise Conflict(
            "the guest has no monitor for recovery here: it did not come in as one that may be in post-copy"
        )
    where, port = _free_port(await resolved(address, setting=_SETTING))
    uri, here = f"tcp:{in_uri(address)}:{port}", f"tcp:{in_uri(str(where))}:{port}"
    deadline = time.monotonic() + _SETTLE_S
    while (error := await _ask_keeper(uuid, "migrate-recover", uri=here)) != "":
        if time.monotonic() > deadline:
            raise Permanent(f"QEMU cannot take the migration up again at {uri}: {error or 'it does not answer'}")
        if error is None:
            await hold_monitor(uuid)
            continue
        await _ask_keeper(uuid, "migrate-pause")  # a stream that only seems whole, or is just being joined
        await asyncio.sleep(_LOOK_S)
    return uri


async def waits(uuid: str) -> bool:
    """Does the guest's QEMU wait for memory? Only then it takes an order to listen again, which changes nothing.

    False where nobody holds its second monitor.
    """
    _, port = _free_port([ip_address(_NOBODY)])
    return await _ask_keeper(uuid, "migrate-recover", uri=f"tcp:{_NOBODY}:{port}") == ""


async def _ask_keeper(uuid: str, command: str, **arguments: object) -> str | None:
    """QEMU's error, '' if there was none; None where no process holds the monitor."""
    request = {"execute": command} | ({"arguments": arguments} if arguments else {})
    try:
        async with asyncio.timeout(ANSWER_S + _SLACK_S):
            reader, writer = await asyncio.open_unix_connection(_held(uuid))
            try:
                writer.write(json.dumps(request).encode() + b"\n")
                line = await reader.readline()
            finally:
                writer.close()
    except OSError:  # TimeoutError is one
        return None
    return str(json.loads(line).get("error", "")) if line else None


def _free_port(addresses: Iterable[Numeric]) -> tuple[Numeric, int]:
    """On the first of them that has one. Raises Permanent where none is this host's, or no port of libvirt's range
    is free on it."""
    errors = []
    ports = recovery_ports()
    for address in addresses:
        for port in ports:
            try:
                _bind(address, port)
            except OSError as error:
                if error.errno == errno.EADDRINUSE and port != ports[-1]:
                    continue
                errors.append(f"{address}: {error.strerror}")
                break
            return address, port
    raise Permanent(f"cannot listen on {'; '.join(errors)}", fix=f"correct {_SETTING}")


def recovery_ports(conf: Path = QEMU_CONF) -> list[int]:
    """Those that both `qemu.conf` and the source's agent allow. From the last one: libvirt hands out the first free
    port, and its QEMU listens there only half a second later."""
    configured = set(stream_ports(conf))
    return [port for port in reversed(STREAM_PORTS) if port in configured] or list(reversed(STREAM_PORTS))


def _bind(address: Numeric, port: int) -> None:
    """For a moment. Raises OSError."""
    with socket.socket(family_of(address)) as trial:
        trial.bind((str(address), port))


# ---------------------------------------------------------------- source


def send_again(conn: Connect, uuid: str, uri: str) -> None:
    """Connect to the destination's half and go on. Blocks, 5 s at the most. Raises libvirtError, Permanent."""
    domain = conn.lookupByUUIDString(uuid)
    deadline = time.monotonic() + _SETTLE_S
    while (status := ask(domain, "query-migrate").get("status")) != _PAUSED:
        if status not in _ON_ITS_WAY or time.monotonic() > deadline:
            raise Permanent(f"the source's QEMU cannot take the migration up again: it is {status}")
        with contextlib.suppress(Refused):  # while it is being joined, or is falling apart by itself
            ask(domain, "migrate-pause")
        time.sleep(_LOOK_S)  # in this connection's own thread
    ask(domain, "migrate", uri=uri, resume=True)


def given_up(domain: object) -> bool:
    """Has the source's QEMU ended its migration without success? It cannot be taken up again. Raises libvirtError.

    QEMU 10.0 does so where a stream breaks once all of the memory is sent, and not yet acknowledged.
    """
    with contextlib.suppress(Refused):
        return ask(domain, "query-migrate").get("status") in _GIVEN_UP
    return False


def qemu_runs_as_root(capabilities: Element) -> bool:
    """Does libvirt start guests as root here (its `dac` base label)?"""
    for model in capabilities.iterfind("host/secmodel"):
        if model.findtext("model") == "dac":
            return any((label.text or "").startswith("+0:") for label in model.iterfind("baselabel"))
    return False
