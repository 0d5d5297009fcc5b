"""What is really in the world on a lab host, asked of libvirt, Open vSwitch, the kernel, the files and the target.

For comparisons before and after: what changes by itself (PIDs, ids, times, sizes of growing files) is left out.
"""

import json
import re
from pathlib import Path

from sterna.lab.host import LabHost, open_vswitch_ports
from sterna.lab.iscsi import IscsiTarget
from sterna.lab.places import INSTANCES, initiator_name

OVS_OWN_LINKS = {"br-int", "ovs-netdev"}


def host_snapshot(host: LabHost, iscsi: IscsiTarget) -> dict[str, object]:
    """Everything a migration may leave on a host, as plain data that compares equal while nothing changes.

    Keys: domains, ports, links, instances (paths), qemu (guest names of running processes), iscsi,
    monitors (sockets of guests that may be in post-copy), interlocks (guests whose QEMU could not run on).
    """
    return {
        "domains": _domains(host),
        "ports": open_vswitch_ports(host),
        "links": _links(host),
        "instances": sorted(allocated_bytes(host)),
        "qemu": _qemu_processes(host),
        "iscsi": _iscsi(host, iscsi),
        "interlocks": _interlocks(host),
        "monitors": sorted(path.name for path in (host.root / "lib/libvirt/qemu").glob("sterna-*")),
    }


def epochs(host: LabHost) -> dict[str, list[int | None]]:
    """Sterna's epoch in each domain's definitions: the live one, if it runs, and the persistent one, if it has one.

    Not part of the snapshot: every migration accepted raises it, also one that fails.
    """
    found: dict[str, list[int | None]] = {}
    for name in host.virsh("list", "--all", "--name").split():
        texts = [host.virsh("dumpxml", name, *which, check=False) for which in ((), ("--inactive",))]
        marks = [re.search(r"<sterna:epoch>(\d+)</sterna:epoch>", text) for text in texts if text]
        found[name] = [int(mark[1]) if mark else None for mark in marks]
    return found


def allocated_bytes(host: LabHost) -> dict[str, int]:
    """Bytes on disk of each file and folder (0) in the host's instance folder, by its path in it.

    As the host itself sees the folder: a test may have mounted something over it.
    """
    root = Path(f"/proc/{host.inside.init.pid}/root{INSTANCES}")
    found: dict[str, int] = {}
    for path in sorted(root.rglob("*")):
        try:
            found[str(path.relative_to(root))] = 0 if path.is_dir() else path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return found


def _domains(host: LabHost) -> dict[str, dict[str, str]]:
    found = {}
    for name in host.virsh("list", "--all", "--name").split():
        lines = host.virsh("dominfo", name, check=False).splitlines()
        facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        found[name] = {key.lower(): facts.get(key, "gone") for key in ("UUID", "State", "Persistent", "Autostart")}
    return found


def _links(host: LabHost) -> list[dict[str, str]]:
    """Taps, macvtaps, Linux bridges and veths, whoever made them, and what they are a port of or hang on."""
    text = host.run(["ip", "-json", "-details", "link", "show"]).stdout
    links = []
    for link in json.loads(text):
        kind = link.get("linkinfo", {}).get("info_kind", "")
        if kind in {"tun", "macvtap", "bridge", "veth"} and link["ifname"] not in OVS_OWN_LINKS:
            # A bridge has the address of one of its ports, a veth a random one, a passthrough parent its guest's.
            address = link.get("address", "") if kind in {"tun", "macvtap"} else ""
            on = link.get("master") or (link.get("link", "") if kind == "macvtap" else "")
            links.append({"name": link["ifname"], "kind": kind, "address": address, "on": on})
    return sorted(links, key=lambda link: link["name"])


def _qemu_processes(host: LabHost) -> list[str]:
    """The guest names of the QEMUs that run on the host, as their own command lines have them."""
    names = []
    for _, argv in host.inside.processes():
        if Path(argv[0]).name.startswith("qemu-system") and "-name" in argv:
            name = argv[argv.index("-name") + 1]
            names.append(name.removeprefix("guest=").partition(",")[0])
    return sorted(names)


def _interlocks(host: LabHost) -> list[str]:
    """Guests whose QEMU has a block node that Sterna put there."""
    names = host.virsh("list", "--name").split()
    ask = ("--cmd", '{"execute": "query-named-block-nodes", "arguments": {"flat": true}}')
    nodes = {name: host.virsh("qemu-monitor-command", name, *ask, check=False) for name in names}
    return [name for name in names if '"sterna-' in nodes[name]]


def _iscsi(host: LabHost, iscsi: IscsiTarget) -> dict[str, dict[str, object]]:
    """Per target that knows the host's initiator: whether it is admitted, and how many sessions it has."""
    initiator = initiator_name(host.name)
    found: dict[str, dict[str, object]] = {}
    for target in iscsi.volumes():
        admitted = initiator in iscsi.admitted(target)
        sessions = iscsi.sessions(target).count(initiator)
        if admitted or sessions:
            found[target] = {"admitted": admitted, "sessions": sessions}
    return found
