"""Leftovers for the tests of `sterna audit`: planted by hand, and as the audit lists them."""

from __future__ import annotations

from dataclasses import replace

from sterna.domain.audit import Leftover
from sterna.domain.files import Created
from sterna.domain.journal import Kind, Migration, Role
from sterna.domain.model import GuestState
from sterna.domain.status import Status
from sterna.ports.vif import MADE_BY
from sterna.sim.world.things import SimDomain, SimFile, SimPort
from tests.saga.fleet import SimFleet


def kinds(found: tuple[Leftover, ...]) -> list[tuple[str, str]]:
    return sorted((f.host, f.kind) for f in found)


async def there_and_back(fleet: SimFleet, vm: str) -> None:
    """The VM has been on host2, whose journal therefore knows its volumes."""
    for source, to in (("host1", "host2"), ("host2", "host1")):
        await fleet.start(vm, to=to, source=source)
        assert await fleet.ended(source) is Status.COMPLETED


def plant_tap(fleet: SimFleet, host: str, vm: str) -> None:
    ids = {"iface-id": "p", "attached-mac": "52:54:00:00:00:01", "vm-uuid": vm} | dict(MADE_BY)
    fleet.world.add_port(host, SimPort("tapleft", "br-int", external_ids=ids))


def plant_definition(fleet: SimFleet, host: str, vm: str) -> None:
    running = fleet.world.hosts["host1"].domains[vm]
    domain = SimDomain(uuid=vm, inactive=running.inactive, reason="unknown")
    fleet.world.hosts[host].domains[vm] = domain


def plant_incoming(fleet: SimFleet, host: str, vm: str) -> None:
    running = fleet.world.hosts["host1"].domains[vm]
    live = replace(running.definition, disks=(), nics=())
    domain = SimDomain(uuid=vm, live=live, state=GuestState.PAUSED, reason="incoming")
    fleet.world.hosts[host].domains[vm] = domain


def plant_files(fleet: SimFleet, host: str, vm: str, *, identity: str = "") -> Created:
    """A half that was given up, not undone: in the journal P8's intent, no R7. `identity`: of the file it made."""
    folder = f"{fleet.world.hosts[host].instances_dir}/{vm}"
    made = Created(directories=(folder,), files=(f"{folder}/tern-vdb.img",))
    journal = fleet.agents[host].journal
    known = Migration(
        id="00000000-0000-4000-8000-0000000000aa", epoch=99, vm_uuid=vm, vm_name="tern",
        source="host1", destination=host,
    )  # fmt: skip
    journal.accept(known, Role.DESTINATION)
    journal.append(known.id, Kind.INTENT, row="P8", name="create-instance-directory", data=made.model_dump())
    if identity:
        reserved = {"identities": dict.fromkeys(made.files, identity)}
        journal.append(known.id, Kind.NOTE, row="P8", name="targets-reserved", data=reserved)
    journal.append(known.id, Kind.NOTE, name="abandoned")
    journal.append(known.id, Kind.CLOSED)
    fleet.world.make_directory(host, folder)
    fleet.world.put_file(host, made.files[0], SimFile(1, content="old"))
    return made


def plant_token(fleet: SimFleet, host: str, vm: str) -> str:
    """Of the migration that brought the VM back: host2 was its source."""
    (accepted,) = [e for e in fleet.agents[host].journal.settled("snapshot-volumes") if e.kind is Kind.INTENT]
    path = next(p for p in accepted.data["paths"] if p.startswith("/srv/shared"))
    place = f"{path.rpartition('/')[0]}/.sterna-{accepted.migration_id}-source"
    fleet.world.put_file(host, place, SimFile(1, content="x"))
    return place
