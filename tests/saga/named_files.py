"""Files that domains of a simulated fleet name: for tests of what is refused because of them, and what is kept."""

from __future__ import annotations

from dataclasses import replace
from posixpath import dirname

from sterna.domain.model import StateFile
from sterna.sim.world.things import Definition, SimDomain, SimFile
from tests.asking import to_check

from .fleet import SimFleet

NVRAM = "/var/lib/libvirt/qemu/nvram/tern_VARS.fd"


def local_disk(fleet: SimFleet, vm: str, host: str = "host1") -> str:
    domain = fleet.world.hosts[host].domains[vm]
    (path,) = (d.path for d in domain.definition.disks if d.path and d.path.startswith("/var/lib/sterna/instances"))
    return path


def other(fleet: SimFleet, host: str, path: str) -> None:
    """A domain of that host, off, that names the file as something."""
    definition = Definition(name="other", memory_bytes=1 << 20, files=(path,))
    fleet.world.hosts[host].domains["other"] = SimDomain("other", inactive=definition)


def nvram_at(fleet: SimFleet, vm: str, path: str = NVRAM) -> None:
    """The VM on host1 has UEFI settings there."""
    fleet.world.make_directory("host1", dirname(path))
    fleet.world.put_file("host1", path, SimFile(1 << 17, content="settings"))
    domain = fleet.world.hosts["host1"].domains[vm]
    assert domain.live is not None
    domain.live = replace(domain.live, firmware=(StateFile(kind="nvram", path=path),))
    domain.inactive = domain.live if domain.inactive is not None else None


async def reasons(fleet: SimFleet, vm: str) -> list[str]:
    answer = await fleet.client.call("host1", "check_migration", to_check(vm, "host2"))
    assert all(r["fix"] for r in answer["refusals"])
    return [r["code"] for r in answer["refusals"]]


def kept(fleet: SimFleet) -> dict[str, str]:
    return dict(fleet.agents["host1"].history(fleet.migration).results["remove-vm-at-source"]["kept"])
