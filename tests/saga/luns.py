"""LUNs of simulated hosts: who names them, who is admitted to them."""

from __future__ import annotations

from sterna.sim.world.things import Definition, SimDomain
from tests.narrowing import not_none
from tests.saga.fleet import SimFleet


def names_the_lun(fleet: SimFleet, host: str, vm: str) -> str:
    """Another domain of that host, off, has the VM's volume as well; the volume's target."""
    domain = next(d.domains[vm] for d in fleet.world.hosts.values() if vm in d.domains)
    (disk,) = (d for d in domain.definition.disks if d.iscsi)
    definition = Definition(name="rescue", memory_bytes=1 << 20, disks=(disk,))
    fleet.world.hosts[host].domains["rescue"] = SimDomain("rescue", inactive=definition)
    return not_none(disk.iscsi).target


def admitted(fleet: SimFleet, vm: str) -> set[str]:
    """Names of the hosts that are admitted to the one LUN of a VM of host2."""
    (target,) = {d.iscsi.target for d in fleet.world.hosts["host2"].domains[vm].definition.disks if d.iscsi}
    names = {host.initiator: name for name, host in fleet.world.hosts.items()}
    return {names[initiator] for initiator in fleet.world.iscsi.targets[target].admitted}
