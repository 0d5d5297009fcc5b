"""The definitions of the corpus, as they stand in `definitions/`. Pure but for reading those files.

A file of a tool is one definition. The comment at its beginning says about it, a line each:

    what:       in words, for the table
    instances:  the agents' `instances_dir` where that tool keeps its disks; else /var/lib/libvirt/images
    provider:   `cinder`, where the agents are set up so; else `native`
    base:       TARGET=PATH, what the image of a disk stands on, by the image's own header
    medium:     TARGET=MIB, the size of a medium, where it is not 1 MiB
    storage:    `shared`, where the tool knows no other
    folder:     `own`, where `instances_dir` is each host's own wherever the disks are
    library:    PATH, a medium of which each host has a copy of its own
    ran:        NAME, the kind of docs/lab-notebook/kinds.md of which such a VM was moved for real

A file of `elements/` has many `<case>`s: what stands in one is put into an ordinary definition.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from lxml import etree

from tests.corpus.hosts import Setting

Element = etree._Element
FOLDER = Path(__file__).with_name("definitions")
ELEMENTS = "elements"
LIBVIRTS = "/var/lib/libvirt/images"
QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
_LINE = re.compile(r"^\s*([a-z]+):\s*(.*?)\s*$")
_PLAIN = f"""
<domain type='kvm' xmlns:qemu='{QEMU}'>
  <name>plain</name><uuid>c0ffee00-0000-4000-8000-00000000000a</uuid>
  <memory unit='GiB'>2</memory><vcpu>2</vcpu>
  <os><type arch='x86_64' machine='pc-q35-10.0'>hvm</type></os>
  <features><acpi/></features>
  <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
  <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
  <source file='{LIBVIRTS}/plain.qcow2'/><target dev='vda' bus='virtio'/></disk></devices>
</domain>"""
"""What each case of an element is put into."""


@dataclass(frozen=True, eq=False)
class Definition:
    """One of the corpus."""

    tool: str
    name: str
    what: str
    domain: Element
    """As the tool hands it to libvirt."""
    instances: str = LIBVIRTS
    provider: str = "native"
    bases: dict[str, str] = field(default_factory=dict)
    media: dict[str, int] = field(default_factory=dict)
    """MiB, by target."""
    always_shared: bool = False
    own_folder: bool = False
    library: frozenset[str] = frozenset()
    ran: str = ""

    @property
    def id(self) -> str:
        """For tests."""
        return f"{self.tool}/{self.name}"

    def setting(self, *, shared: bool) -> Setting:
        """Of two agents, with what belongs to this VM."""
        folder = f"{self.instances}/{self.domain.findtext('uuid')}" if self.own_folder else ""
        own = frozenset(self._own())
        return Setting(shared or self.always_shared, own, self.instances, self.library, folder)

    def _own(self) -> Iterator[str]:
        yield f"{self.instances}/{self.domain.findtext('uuid')}"
        yield from self.bases.values()
        for element in self.domain.iter():
            values = (
                (*element.attrib.values(), (element.text or "").strip()) if isinstance(element.tag, str) else ()
            )
            for value in map(str, values):
                for path in re.findall(r"(?:^|[=,])(/[^,]+)", value):
                    if path.startswith(f"{self.instances}/") or (element.tag == "source" and _is_disks(element)):
                        yield path


def _is_disks(source: Element) -> bool:
    parent = source.getparent()
    return parent is not None and parent.tag in ("disk", "backingStore", "dataStore")


@cache
def tools() -> tuple[Definition, ...]:
    """As tools write them."""
    files = sorted(f for f in FOLDER.glob("*/*.xml") if f.parent.name != ELEMENTS)
    return tuple(_of_tool(file) for file in files)


@cache
def elements() -> tuple[Definition, ...]:
    """One for each part of the schema that matters."""
    return tuple(case for file in sorted((FOLDER / ELEMENTS).glob("*.xml")) for case in _cases(file))


def _of_tool(file: Path) -> Definition:
    tree = etree.parse(file, etree.XMLParser(remove_blank_text=True))
    comment = tree.getroot().getprevious()
    assert comment is not None and comment.tag is etree.Comment, f"{file} has no comment before its definition"
    said: dict[str, list[str]] = {}
    for line in (comment.text or "").splitlines():
        if found := _LINE.match(line):
            said.setdefault(found[1], []).append(found[2])
    return _definition(file.parent.name, file.stem, tree.getroot(), said)


def _definition(tool: str, name: str, domain: Element, said: dict[str, list[str]]) -> Definition:
    known = {"what", "instances", "provider", "base", "medium", "storage", "folder", "library", "ran"}
    assert said.keys() <= known and said.get("what"), f"{tool}/{name} says {sorted(said)}"
    pairs = {word: dict(line.split("=", 1) for line in said.get(word, ())) for word in ("base", "medium")}
    return Definition(
        tool=tool,
        name=name,
        what=said["what"][0],
        domain=domain,
        instances=said.get("instances", [LIBVIRTS])[0],
        provider=said.get("provider", ["native"])[0],
        bases=pairs["base"],
        media={target: int(mib) for target, mib in pairs["medium"].items()},
        own_folder=said.get("folder") == ["own"],
        always_shared=said.get("storage") == ["shared"],
        library=frozenset(said.get("library", ())),
        ran=said.get("ran", [""])[0],
    )


def _cases(file: Path) -> Iterator[Definition]:
    root = etree.parse(file, etree.XMLParser(remove_blank_text=True, remove_comments=True)).getroot()
    for number, case in enumerate(root.iterfind("case")):
        domain = etree.fromstring(_PLAIN, etree.XMLParser(remove_blank_text=True))
        said = {str(k): [str(v)] for k, v in case.attrib.items() if k not in ("type", "instead")}
        for place in case.get("instead", "").split():
            for old in domain.findall(place):
                _parent(old).remove(old)
        domain.set("type", case.get("type", "kvm"))
        for child in case:
            _put(domain, copy.deepcopy(child))
        yield _definition(file.stem, f"{number:02}", domain, said)


_MERGED = ("devices", "os", "features", "cpu", "metadata")


def _put(domain: Element, new: Element) -> None:
    """A part into its place: beside the others of devices, os and the like, else instead of one of its name."""
    old = domain.find(new.tag)
    if old is not None and new.tag in _MERGED:
        old.attrib.update(new.attrib)
        for child in list(new):
            if new.tag == "os" and child.tag == "type":
                old.remove(old[0])
                old.insert(0, child)
            else:
                old.append(child)
        return
    if old is not None:
        domain.replace(old, new)
    else:
        domain.append(new)


def _parent(element: Element) -> Element:
    found = element.getparent()
    assert found is not None
    return found
