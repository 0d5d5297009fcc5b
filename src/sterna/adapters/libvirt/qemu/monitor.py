"""Asking a guest's QEMU itself, through libvirt, for what libvirt has no call for. Blocking."""

from __future__ import annotations

import json
from typing import Any

import libvirt_qemu

from sterna.domain.errors import Permanent


class Refused(Permanent):
    """QEMU's own refusal; its words are the message."""


def ask(domain: Any, command: str, *, descriptor: int | None = None, **arguments: Any) -> Any:
    """What QEMU returns. `descriptor`: a file's, that goes with the command; names with `_` become QEMU's with `-`.

    Raises Refused, libvirtError.
    """
    named = {name.replace("_", "-"): value for name, value in arguments.items()}
    request = json.dumps({"execute": command} | ({"arguments": named} if named else {}))
    if descriptor is None:
        reply = libvirt_qemu.qemuMonitorCommand(domain, request, 0)
    else:
        reply, _ = libvirt_qemu.qemuMonitorCommandWithFiles(domain, request, [descriptor], 0)
    answer = json.loads(reply)
    if "error" in answer:
        raise Refused(f"QEMU refused {command}: {answer['error'].get('desc', answer['error'])}")
    return answer.get("return", {})
