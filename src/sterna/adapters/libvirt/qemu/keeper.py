"""Holds a guest's second monitor open for as long as it may be in post-copy: a process of its own, one per guest.

While a page is missing QEMU's main thread may be blocked (a packet that has to go into the guest's memory is
enough). It then takes only out-of-band commands, and only from a connection that was opened before: opening one
needs the main thread. So the connection must outlive the agent. Started by `recovery.hold_monitor`; it ends with
the guest's QEMU, or when its own socket is taken away.

    python -m sterna.adapters.libvirt.qemu.keeper MONITOR SOCKET
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from pathlib import Path

from qemu.qmp import ExecuteError, QMPClient, QMPError, Runstate

HELD = b"held\n"
"""What it prints once it holds the monitor and takes commands."""
CONNECT_S = 10.0
LOOK_S = 1.0
ANSWER_S = 4.0


async def keep(monitor: str, path: Path) -> None:
    """Open the monitor, then pass commands on until QEMU has ended or `path` is gone.

    Raises TimeoutError where the monitor does not open within CONNECT_S: its caller tries again.
    """
    client = QMPClient("sterna")
    async with asyncio.timeout(CONNECT_S):  # QEMU speaks to one at a time: somebody else may hold it
        await client.connect(monitor)
    if not _is_there(Path(monitor)):  # the socket is gone already: nothing would ever end this process
        return  # which closes its connection

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                asked = json.loads(await reader.readline())
            answer = await _execute(client, str(asked["execute"]), asked.get("arguments"))
        except (ValueError, KeyError, TypeError, TimeoutError) as error:
            answer = {"error": f"not understood: {error}"}
        writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()

    _gone(path)
    server = await asyncio.start_unix_server(pass_on, sock=_own_socket(path))
    _report_ready()
    async with server:
        while _is_there(path) and client.runstate is Runstate.RUNNING:  # noqa: ASYNC110 - no event tells of a file
            await asyncio.sleep(LOOK_S)
    _gone(path)


def _own_socket(path: Path) -> socket.socket:
    """For its owner alone from the first moment. A chmod would follow a link: QEMU's user may own the folder."""
    before = os.umask(0o177)
    try:
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(path))
        return made
    finally:
        os.umask(before)


def _report_ready() -> None:
    """Tell the parent process, which may be gone, and close stdout."""
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), HELD)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_there(path: Path) -> bool:
    return path.exists()


def _gone(path: Path) -> None:
    path.unlink(missing_ok=True)


async def _execute(client: QMPClient, command: str, arguments: dict[str, object] | None) -> dict[str, object]:
    try:
        async with asyncio.timeout(ANSWER_S):
            return {"return": await client.execute(command, arguments, oob=True)}
    except ExecuteError as error:
        return {"error": str(error)}
    except (QMPError, TimeoutError) as error:
        return {"error": f"QEMU does not answer: {error}"}


if __name__ == "__main__":
    asyncio.run(keep(sys.argv[1], Path(sys.argv[2])))
