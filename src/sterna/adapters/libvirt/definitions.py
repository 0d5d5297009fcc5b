"""The definitions of any domain of this host, also of one that is on its way here. Blocking.

While a guest arrives, libvirt gives its definition to nobody: `virDomainGetXMLDesc` waits for 30 s, then fails
("cannot acquire state change lock"). A copy may take hours, and others are to be planned and moved meanwhile. So
such a guest's definition is read where libvirtd itself keeps it for its next start.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import libvirt

from sterna.adapters.libvirt.xml.metadata import parse_xml, to_text
from sterna.domain.errors import Permanent

RUNNING, DEFINED = Path("/run/libvirt/qemu"), Path("/etc/libvirt/qemu")
STARTS_S, _PAUSE_S = 10.0, 0.02
"""A QEMU is started within a second or two; nothing tells of it."""
_IN_A_MIGRATION = frozenset(
    {
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED),
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY),
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED),
    }
)


def definitions(domain: Any, running: Path = RUNNING, defined: Path = DEFINED) -> Iterator[str]:
    """The one it has now, and the persistent one if that is another. Raises libvirtError."""
    if arriving := of_arriving(domain, running, defined):
        yield from arriving
        return
    yield domain.XMLDesc()
    if domain.isActive() and domain.isPersistent():
        yield domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)


def of_arriving(domain: Any, running: Path = RUNNING, defined: Path = DEFINED) -> tuple[str, ...]:
    """The same of a guest that is on its way here; none for any other, or where its files do not say."""
    file = running / f"{domain.name()}.xml"
    kept = _kept(file) if _in_a_migration(domain, file) else None
    persistent = _kept(defined / f"{domain.name()}.xml") if kept is not None and domain.isPersistent() else None
    return tuple(text for text in (kept, persistent) if text is not None)


def _in_a_migration(domain: Any, file: Path) -> bool:
    """Waits for a QEMU that is just being started until it is known what for: who asks for its definition in that
    moment would be made to wait for all of a migration."""
    deadline = time.monotonic() + STARTS_S
    while _starts(domain, state := _state(domain)):
        if file.exists():
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_S)
    return state in _IN_A_MIGRATION


def _starts(domain: Any, state: tuple[int, int]) -> bool:
    if state[0] == libvirt.VIR_DOMAIN_SHUTOFF:
        return not domain.isPersistent()  # libvirt knows a transient domain that is off only while it starts it
    return state == (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_STARTING_UP)


def _state(domain: Any) -> tuple[int, int]:
    state, reason, *_ = domain.state()
    return state, reason


def _kept(path: Path) -> str | None:
    """None where there is none, or this agent may not read it."""
    try:
        root = parse_xml(path.read_text())
    except (OSError, ValueError, Permanent):
        return None
    domain = root if root.tag == "domain" else root.find("domain")
    return None if domain is None else to_text(domain)
