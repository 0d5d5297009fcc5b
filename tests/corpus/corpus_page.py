"""Writes docs/reference/corpus.md from the verdicts over the corpus."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import groupby
from pathlib import Path

from sterna.domain.refusals import GROUPS
from tests.corpus.arrival import LIVE, PERSISTENT
from tests.corpus.catalogue import Definition, elements, tools
from tests.corpus.judge import Verdict, verdicts
from tests.unit.markdown import MADE, cell

KINDS = Path(__file__).parents[2] / "docs/lab-notebook/kinds.md"
TOOLS = {
    "virt-install": "virt-install",
    "virt-manager": "virt-manager",
    "cockpit": "Cockpit (cockpit-machines)",
    "nova": "Nova",
    "ovirt": "oVirt (vdsm)",
    "cloudstack": "CloudStack",
    "opennebula": "OpenNebula",
    "kubevirt": "KubeVirt",
    "terraform": "Terraform (libvirt provider)",
    "vagrant": "Vagrant (vagrant-libvirt)",
    "v2v": "virt-v2v, and conversions by hand",
    "small": "minikube, Multipass, GNOME Boxes, OpenShift Local",
}
"""Folders of `definitions/`, in the order of the page."""
NOTES = {
    "kubevirt": (
        "KubeVirt's libvirt runs in the pod of its VM, and KubeVirt moves the VM. The rows say what an agent would "
        "say of such a definition."
    ),
    "small": "Some of these run in a user's own libvirt. An agent speaks to the system's.",
}
"""What must be known about a tool's VMs."""
PARTS = {
    "disks": "Disks: options",
    "disk-images": "Disks: chains, formats and kinds of files",
    "disks-elsewhere": "Disks: devices, pools and the network",
    "media-and-controllers": "Media and controllers",
    "nics": "NICs: bridges, switches, devices of the host",
    "nics-elsewhere": "NICs: libvirt networks and other types",
    "nic-options": "NICs: options",
    "boot": "Firmware, boot, machine and arguments",
    "cpu": "CPU and NUMA",
    "memory": "Memory",
    "host": "Limits, labels, features and clock",
    "screens": "Screens and video",
    "serial-ports": "Serial ports and channels",
    "devices": "TPM, host devices, folders",
    "more-devices": "Other devices",
}


@cache
def anchors() -> dict[str, str]:
    """Where refusals.md explains a code."""
    slugs = {group.title: re.sub(r"[^a-z0-9]+", "-", group.title.lower()).strip("-") for group in GROUPS}
    return {entry.code: slugs[group.title] for group in GROUPS for entry in group.entries}


@cache
def moved_for_real() -> dict[str, bool]:
    """The kinds that stood in the lab: whether each was moved there and back, or refused."""
    rows = (line.split(" | ") for line in KINDS.read_text(encoding="utf-8").splitlines() if line.startswith("| "))
    return {row[0].removeprefix("| "): row[1] == "there and back" for row in rows if len(row) == 3}


def said(verdict: Verdict) -> str:
    """For a cell."""
    if verdict.moves:
        ways = ", ".join(verdict.ways)
        return f"moves: {ways}" if ways else "moves"
    return ", ".join(f"[`{code}`](refusals.md#{anchors()[code]})" for code in verdict.codes)


def _ran(definition: Definition) -> str:
    if not definition.ran:
        return "no"
    return "yes" if moved_for_real()[definition.ran] else "refused there, too"


def _rows(definitions: Iterable[Definition]) -> Iterator[str]:
    found = verdicts()
    yield "| What it is | Disks on each host's own storage | Disks that both hosts see | Run for real |"
    yield "|---|---|---|---|"
    for each in definitions:
        own, shared = said(found[each.id, False]), said(found[each.id, True])
        yield f"| {cell(each.what)} | {own} | {'the same' if own == shared else shared} | {_ran(each)} |"


def _by_folder(definitions: Iterable[Definition]) -> dict[str, list[Definition]]:
    return {folder: list(some) for folder, some in groupby(definitions, key=lambda each: each.tool)}


def _counts() -> Iterator[str]:
    found, known = verdicts(), _by_folder(tools())
    yield "| Tool | Definitions | Move, disks on each host's own storage | Move, disks that both hosts see |"
    yield "|---|---|---|---|"
    for folder, title in TOOLS.items():
        own, shared = (sum(found[each.id, s].moves for each in known[folder]) for s in (False, True))
        yield f"| {title} | {len(known[folder])} | {own} | {shared} |"
    own, shared = (sum(found[each.id, s].moves for each in tools()) for s in (False, True))
    yield f"| **all** | **{len(tools())}** | **{own}** | **{shared}** |"


def _obstacles() -> Iterator[str]:
    found = verdicts()
    yield "| Code | Definitions, disks on each host's own storage | Disks that both hosts see |"
    yield "|---|---|---|"
    counted = {s: [code for each in tools() for code in found[each.id, s].codes] for s in (False, True)}
    for code in sorted({*counted[False], *counted[True]}, key=lambda c: (-counted[False].count(c), c)):
        link = f"[`{code}`](refusals.md#{anchors()[code]})"
        yield f"| {link} | {counted[False].count(code)} | {counted[True].count(code)} |"


def _differences() -> Iterator[str]:
    yield "| Place | Running guest | Next start | Why |"
    yield "|---|---|---|---|"
    for place in sorted({*LIVE, *PERSISTENT}):
        yes = ["may differ" if place in each else "equal" for each in (LIVE, PERSISTENT)]
        yield f"| `{place}` | {yes[0]} | {yes[1]} | {cell(LIVE.get(place) or PERSISTENT[place])} |"


def page() -> str:
    """All of it."""
    parts = ["# Definitions that tools write", MADE, INTRODUCTION, "\n".join(_counts())]
    parts += ["What stands in the way, of how many of them:", "\n".join(_obstacles())]
    known = _by_folder(tools())
    assert known.keys() == TOOLS.keys()
    for folder, title in TOOLS.items():
        parts += [f"## {title}", *([NOTES[folder]] if folder in NOTES else []), "\n".join(_rows(known[folder]))]
    parts += ["## Each part of a definition", ELEMENTS]
    known = _by_folder(elements())
    assert known.keys() == PARTS.keys()
    for folder, title in PARTS.items():
        parts += [f"### {title}", "\n".join(_rows(known[folder]))]
    parts += ["## What differs after a move", DIFFERENCES, "\n".join(_differences())]
    return "\n\n".join(parts) + "\n"


INTRODUCTION = """\
What `sterna plan` says of VMs as people have them. The definitions were written for this page, in the form in which
each tool hands them to libvirt. The agents' own checks judge each one twice: its files on storage of each host's
own, and on storage that both hosts see.

The two hosts are described, not real. They are set up alike: both have the bridges, libvirt networks, filters,
devices, firmware and free huge pages that the definition names, the same CPU, libvirt 11.3 and QEMU 10.0. The files
of the VM are on the source only, unless its disks are on shared storage. `instances_dir` is the folder in which the
tool keeps disks. Nova's VMs run with `provider = "cinder"` where they have volumes, and Cinder reports each volume
as it must be.

*Run for real* is about the part that a row is about, on a VM that is otherwise ordinary: *yes* if it is one of the
[kinds](../lab-notebook/kinds.md) that were moved there and back in the lab, *refused there, too* if it is one that
was refused. Whole definitions of tools were not run.

*With a warning*: the plan names something that it could not compare."""
ELEMENTS = """\
An ordinary VM with one qcow2 disk, and in each row one part more, or another one in its place. Each class of places
of libvirt's domain schema ([Definitions](definitions.md)) has at least one definition, but for those of other
hypervisors. What QEMU itself lists as blocking is as its source has it; the plan asks the running QEMU."""
DIFFERENCES = """\
For each definition that moves, the test compares what would arrive with what left: element by element, attribute by
attribute, of the running guest and of its persistent definition. Nothing differs but these places:"""


if __name__ == "__main__":
    print(page(), end="")
