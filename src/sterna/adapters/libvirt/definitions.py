"""The definitions of any domain of this host, also where libvirt itself does not return them now. Blocking.

While a guest arrives, libvirt does not return its definition: `virDomainGetXMLDesc` waits for 30 s, then fails
("cannot acquire state change lock"). A copy may take hours, and other VMs must be planned and moved during it. So
such a guest's definition is read where libvirtd itself keeps it for its next start.

The same holds for a guest that another call has locked because its QEMU hangs: libvirt may wait for 30 s, then
fail. libvirtd writes its file of a running guest after each change, before it releases the lock. It writes that of
the persistent definition whenever one is defined. Each may name what the other does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt

from sterna.adapters.libvirt.xml.metadata import parse_xml, to_text
from sterna.domain.errors import Permanent

RUNNING, DEFINED = Path("/run/libvirt/qemu"), Path("/etc/libvirt/qemu")
STARTS_S, _PAUSE_S = 10.0, 0.02
"""A QEMU is started within a second or two; there is no event for it."""
HELD_S = 2.0
"""A call about a guest whose QEMU answers lets it go after milliseconds."""
_BUSY = (libvirt.VIR_ERR_OPERATION_TIMEOUT, libvirt.VIR_ERR_RESOURCE_BUSY)
_IN_A_MIGRATION = frozenset(
    {
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_POSTCOPY_FAILED),
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY),
        (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY_FAILED),
    }
)


class Patience:
    """How long one pass over many domains waits for all of those together that it cannot read at once."""

    def __init__(self, *, none: bool = False) -> None:
        """`none`: their files are read at once, which may be a moment old."""
        self._left_s = {limit: 0.0 if none else limit for limit in (STARTS_S, HELD_S)}

    def wait(self, limit_s: float, still: Callable[[], bool]) -> bool:
        """As long as it is `still` so. False where it is so at the end of what is left of this limit."""
        began = time.monotonic()
        deadline = began + self._left_s[limit_s]
        try:
            while still():
                if time.monotonic() >= deadline:
                    return False
                time.sleep(_PAUSE_S)
            return True
        finally:
            self._left_s[limit_s] -= time.monotonic() - began


def definitions(domain: Any, patience: Patience, running: Path = RUNNING, defined: Path = DEFINED) -> Iterator[str]:
    """The one it has now, and the persistent one if that is another. Raises libvirtError."""
    xmls = of_arriving(domain, running, defined, patience) or _of_held(domain, running, defined, patience)
    yield from xmls or _asked(domain, running, defined)


def _asked(domain: Any, running: Path, defined: Path) -> tuple[str, ...]:
    try:
        now = domain.XMLDesc()
        has_another = domain.isActive() and domain.isPersistent()
        return (now, domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)) if has_another else (now,)
    except libvirt.libvirtError as error:
        kept = _from_files(domain, running, defined) if error.get_error_code() in _BUSY else ()
        if not kept:
            raise
        return kept


def _of_held(domain: Any, running: Path, defined: Path, patience: Patience) -> tuple[str, ...]:
    """Of a guest that another call holds; none for any other, or where its files do not say."""
    if patience.wait(HELD_S, lambda: _is_held(domain)):
        return ()
    return _from_files(domain, running, defined)


def _is_held(domain: Any) -> bool:
    try:
        return bool(domain.isActive() and domain.controlInfo()[0] != libvirt.VIR_DOMAIN_CONTROL_OK)
    except libvirt.libvirtError:  # it ended while we looked, or this libvirt cannot say
        return False


def _from_files(domain: Any, running: Path, defined: Path) -> tuple[str, ...]:
    """Of a running guest: all of its definitions, or none."""
    folders = (running, defined) if domain.isPersistent() else (running,)
    kept = [_kept(folder / f"{domain.name()}.xml") for folder in folders]
    own = [text for text in kept if text and parse_xml(text).findtext("uuid") == domain.UUIDString()]
    return tuple(own) if len(own) == len(folders) else ()


def of_arriving(
    domain: Any, running: Path = RUNNING, defined: Path = DEFINED, patience: Patience | None = None
) -> tuple[str, ...]:
    """The same of a guest that is on its way here; none for any other, or where its files do not say."""
    file = running / f"{domain.name()}.xml"
    kept = _kept(file) if _in_a_migration(domain, file, patience or Patience()) else None
    persistent = _kept(defined / f"{domain.name()}.xml") if kept is not None and domain.isPersistent() else None
    return tuple(text for text in (kept, persistent) if text is not None)


def _in_a_migration(domain: Any, file: Path, patience: Patience) -> bool:
    """Waits for a QEMU that is just being started until it is known what for: who asks for its definition in that
    moment would be made to wait for all of a migration."""
    if not patience.wait(STARTS_S, lambda: _starts(domain, _state(domain)) and not file.exists()):
        return False
    state = _state(domain)
    return state in _IN_A_MIGRATION or (_starts(domain, state) and file.exists())


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
    if domain is None:
        return None
    for private in [*domain.iter("privateData")]:  # libvirtd's own notes: names of objects in QEMU, no files
        parent = private.getparent()
        if parent is not None:
            parent.remove(private)
    return to_text(domain)
