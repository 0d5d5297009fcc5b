"""The places of libvirt's domain schema, as it is installed with libvirt, that may hold more than fixed words.

A place is an element with text or an attribute, written `devices/serial/source/@path`. One whose type allows only
fixed words cannot name a thing of the host and is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

from lxml import etree

SCHEMAS = Path("/usr/share/libvirt/schemas")
_NG = "{http://relaxng.org/ns/structure/1.0}"
FREE = ("data", "text")
"""What a value may be besides a fixed word."""


@cache
def places() -> tuple[str, ...]:
    """Every place of the schema that may hold more than fixed words, without the leading `domain/`."""
    found: dict[str, bool] = {}
    grammar = _Grammar()
    grammar.walk(grammar.defined["domain"][0], "", frozenset(), found)
    return tuple(sorted(place.removeprefix("/domain/") for place, free in found.items() if free))


class _Grammar:
    """RELAX NG as libvirt writes it: defines, includes that override some, and references."""

    def __init__(self) -> None:
        self.defined: dict[str, list[etree._Element]] = {}
        self._read(etree.parse(SCHEMAS / "domain.rng").getroot(), frozenset())

    def _read(self, grammar: etree._Element, besides: frozenset[str]) -> None:
        for child in grammar:
            if child.tag == _NG + "include":
                overridden = {str(d.get("name")) for d in child.iter(_NG + "define")}
                self._read(etree.parse(SCHEMAS / str(child.get("href"))).getroot(), besides | overridden)
                self._read(child, besides)
            elif child.tag == _NG + "define" and child.get("name") not in besides:
                self.defined.setdefault(str(child.get("name")), []).append(child)

    def walk(self, pattern: etree._Element, path: str, above: frozenset[int], found: dict[str, bool]) -> None:
        """Note every element with text and every attribute below a pattern."""
        for child in pattern:
            if child.tag == _NG + "ref":
                for definition in self.defined.get(str(child.get("name")), []):
                    if id(definition) not in above:
                        self.walk(definition, path, above | {id(definition)}, found)
            elif child.tag == _NG + "element":
                here = f"{path}/{child.get('name') or '*'}"
                if any(self._types(child, frozenset())):
                    found[here] = True
                if id(child) not in above:
                    self.walk(child, here, above | {id(child)}, found)
            elif child.tag == _NG + "attribute":
                here = f"{path}/@{child.get('name') or '*'}"
                free = any(self._types(child, frozenset())) or not list(child)
                found[here] = found.get(here, False) or free
            elif isinstance(child.tag, str):
                self.walk(child, path, above, found)

    def _types(self, pattern: etree._Element, above: frozenset[str]) -> Iterator[bool]:
        """For each type of the content, whether it is more than a fixed word."""
        for child in pattern:
            name = str(child.get("name"))
            if child.tag == _NG + "ref" and name not in above:
                for definition in self.defined.get(name, []):
                    yield from self._types(definition, above | {name})
            elif child.tag in {_NG + word for word in FREE}:
                yield True
            elif isinstance(child.tag, str) and child.tag not in {
                _NG + word for word in ("element", "attribute", "value", "except", "ref", "name", "anyName")
            }:
                yield from self._types(child, above)
