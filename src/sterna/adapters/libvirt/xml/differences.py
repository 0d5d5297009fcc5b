"""In which places two definitions of one VM differ. Pure.

Elements are compared with their counterparts, whatever their order: a disk by its target, a NIC by its MAC address,
others by their position among those of their name. Comments and white space do not count. libvirt is asked for
definitions without secrets; whatever has the form of one is not shown either.
"""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from sterna.adapters.libvirt.xml.metadata import NAMESPACE, Element, parse_xml, to_text
from sterna.adapters.libvirt.xml.nic_forms import is_hot_unplugged, mac_of
from sterna.adapters.libvirt.xml.render import render_live, render_persistent
from sterna.domain.copying import CopyPlan
from sterna.domain.definition_changes import DefinitionChange, DefinitionChanges, bounded, element
from sterna.kit import redaction

_Key = tuple[str, str, int]


def changes_for(live: str, inactive: str | None, plan: CopyPlan) -> DefinitionChanges:
    """What the destination is given differently than the source has it, within bounds.

    `live` and `inactive` without secrets, in the form in which libvirt migrates them; `inactive` None for a
    transient VM. Raises Permanent where the plan does not fit.
    """
    running = differences(parse_xml(live), parse_xml(render_live(live, plan)))
    if inactive is None or not plan.persistent:
        return bounded(list(running), None)
    cold = differences(parse_xml(inactive), parse_xml(render_persistent(inactive, plan, live=live)))
    return bounded(list(running), list(cold))


def differences(before: Element, after: Element) -> Iterator[DefinitionChange]:
    """Every place in which they differ; of an element that only one of them has, its whole content as one."""
    return _walk(before, after, "")


def _walk(before: Element, after: Element, path: str) -> Iterator[DefinitionChange]:
    for name in dict.fromkeys(map(str, (*before.attrib, *after.attrib))):
        if before.get(name) != after.get(name):
            values = (_value(name, one.get(name)) for one in (before, after))
            yield _change(f"{path}/@{name}".lstrip("/"), *values)
    ours, theirs = ((one.text or "").strip() for one in (before, after))
    if ours != theirs:
        yield _change(f"{path}/text()".lstrip("/"), redaction.text(ours), redaction.text(theirs))
    yield from _below(before, after, path)


def _below(before: Element, after: Element, path: str) -> Iterator[DefinitionChange]:
    ours, theirs = _children(before), _children(after)
    keys = list(dict.fromkeys((*ours, *theirs)))
    several = {(tag, own) for tag, own, number in keys if number}
    for tag, own, number in keys:
        key = (tag, own, number)
        which = f"{own} {number + 1}".strip() if (tag, own) in several else own
        here = f"{path}/{element(tag, which)}".lstrip("/")
        if key in ours and key in theirs:
            yield from _walk(ours[key], theirs[key], here)
        else:
            yield _change(here, *(_whole(one[key]) if key in one else "" for one in (ours, theirs)))


def _change(where: str, before: str, after: str) -> DefinitionChange:
    return DefinitionChange(where=where, before=before, after=after)


def _value(name: str, value: str | None) -> str:
    return redaction.REDACTED if value and redaction.is_secret(name) else redaction.text(value or "")


def _whole(found: Element) -> str:
    """An element as text on one line."""
    alone = parse_xml(etree.tostring(found, encoding="unicode", with_tail=False))
    for one in alone.iter():
        for name in filter(redaction.is_secret, map(str, one.attrib)):
            one.set(name, redaction.REDACTED)
    etree.cleanup_namespaces(alone)
    return redaction.text(" ".join(to_text(alone).split()))


def _children(parent: Element) -> dict[_Key, Element]:
    found: dict[_Key, Element] = {}
    for child in parent:
        if not isinstance(child.tag, str):
            continue
        own, number, tag = _own(child), 0, _name(child)
        while (tag, own, number) in found:
            number += 1
        found[tag, own, number] = child
    return found


def _own(child: Element) -> str:
    """What tells it from others of its name, by itself."""
    if child.tag == "interface":
        return mac_of(child) + (" function" if is_hot_unplugged(child) else "")
    if child.tag == "disk":
        target = child.find("target")
        return (target.get("dev") or "") if target is not None else ""
    return (child.get("mac") or "") if child.tag == f"{{{NAMESPACE}}}nic" else ""


def _name(child: Element) -> str:
    """Without its namespace; Sterna's own element in the metadata is called `domain`, as the root is."""
    name = etree.QName(child)
    own = name.namespace == NAMESPACE and name.localname == "domain"
    return "sterna" if own else name.localname
