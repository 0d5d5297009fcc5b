"""The addresses at which a guest's console and serial ports listen, in libvirt's XML.

Pure. Called by `render.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from sterna.adapters.libvirt.xml.metadata import Element


def listen_at(domain: Element, addresses: Mapping[str, str]) -> None:
    """Let whatever listens at one of these addresses listen at the other; nothing else is touched."""
    for screen in domain.iterfind("devices/graphics"):
        _replace(screen, "listen", addresses)
        for listen in screen.iterfind("listen[@type='address']"):
            _replace(listen, "address", addresses)
    for source in domain.iterfind("devices//source[@mode='bind']"):
        _replace(source, "host", addresses)


def _replace(element: Element, name: str, addresses: Mapping[str, str]) -> None:
    new = addresses.get(element.get(name, ""))
    if new is not None:
        element.set(name, new)
