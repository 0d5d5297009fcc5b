"""One more provider of volumes touches four files of the source at most, also one of a kind of disk of its own.

What is added in a copy here, and runs there, is what docs/contributing/adding-a-volume-provider.md tells to do.
"""

from __future__ import annotations

from pathlib import Path

from tests.shape.seams import AT_MOST, Copy

PROVIDER = '''
"""A made-up provider."""

from __future__ import annotations

from sterna.domain.model import Disk, DiskKind, Refusal


class ShelfVolumes:
    """`ports.volume.Volumes` for iSCSI targets of a service that admits hosts by name."""

    def __init__(self, initiator: str) -> None:
        self._initiator = initiator
        self.admitted_here: set[str] = set()

    def handles(self, disk: Disk) -> bool:
        return disk.kind is DiskKind.ISCSI

    async def check(self, disk: Disk, source: str) -> list[Refusal]:
        return []

    async def admitted(self, disk: Disk) -> bool:
        return disk.target in self.admitted_here

    async def attach(self, disk: Disk, source: str) -> Disk:
        assert disk.iscsi is not None
        self.admitted_here.add(disk.target)
        return disk.model_copy(update={"iscsi": disk.iscsi.model_copy(update={"initiator": self._initiator})})

    async def connect(self, disk: Disk) -> Disk:
        return disk

    async def disconnect(self, disk: Disk) -> None:
        pass

    async def detach(self, disk: Disk) -> None:
        self.admitted_here.discard(disk.target)
'''
USED = """
import asyncio
from pathlib import Path
from sterna.adapters.volumes.shelf import ShelfVolumes
from sterna.bootstrap.host import volumes_of
from sterna.config import AgentSettings, load
from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from tests.saga.fleet import SimFleet

Path("agent.toml").write_text('''host = "h"
[bus]
url = "nats://127.0.0.1:4222"
[migration]
address = "10.0.0.1"
[volumes]
provider = "shelf"
initiator = "iqn.2026-11.org.sterna:h"
''')
chosen = volumes_of(load(AgentSettings, Path("agent.toml")), None, None)
asked = []


class Watched(ShelfVolumes):
    async def attach(self, disk, source):
        asked.append(("attach", disk.target))
        fleet.world.admit(disk.iscsi.target, self._initiator, "host2")
        return await super().attach(disk, source)

    async def detach(self, disk):
        asked.append(("detach", disk.target))
        await super().detach(disk)


async def scenario():
    async with fleet:
        for name, agent in fleet.agents.items():
            provider = Watched(fleet.world.hosts[name].initiator)
            object.__setattr__(agent._agent._host, "volumes", (provider, *agent._agent._host.volumes))
        vm = add_vm(fleet.world, "host1", "vm1", disks=("shared", "iscsi"))
        (iscsi,) = [d for d in fleet.world.hosts["host1"].domains[vm].live.disks if d.iscsi]
        assert isinstance(next(v for v in chosen if v.handles(iscsi)), ShelfVolumes), chosen
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED
        assert fleet.world.running(vm) == ["host2"]
        assert asked == [("attach", "vdb"), ("detach", "vdb")], asked


fleet = SimFleet()
asyncio.run(fleet.clock.run(scenario()))
"""


def test_a_made_up_provider_touches_four_files_and_is_asked(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    copy.write("adapters/volumes/shelf.py", PROVIDER)
    copy.replace("config/__init__.py", 'Literal["native", "cinder"]', 'Literal["native", "cinder", "shelf"]')
    copy.insert(
        "bootstrap/host.py",
        "from sterna.adapters.volumes.tgt",
        "from sterna.adapters.volumes.shelf import ShelfVolumes\n",
    )
    copy.insert(
        "bootstrap/host.py",
        "    volumes.append(SharedFileVolumes())",
        '    if settings.volumes.provider == "shelf" and settings.volumes.initiator:\n'
        "        volumes.append(ShelfVolumes(settings.volumes.initiator))\n",
    )
    done = copy.run(USED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(copy.touched()) <= AT_MOST, copy.touched()


SOURCE = """class NbdSource(Source):
    \"\"\"An export of an NBD server.\"\"\"

    server: str
    export: str

    @property
    def names(self) -> object:
        return self.export

    def odd(self) -> Iterator[tuple[str, object]]:
        if not is_address(self.server):
            yield "server", self.server


"""
FORM = """def _read_nbd(source: Element) -> Data | str:
    host = source.find("host")
    server = host.get("name") if host is not None else ""
    return {"nbd": NbdSource(server=server or "", export=source.get("name") or "")}


def _write_nbd(disk: Element, source: Element, known: Disk, planned: DestinationDisk) -> None:
    assert planned.nbd is not None
    drop_all(source, "host")
    source.append(etree.Element("host", {"name": planned.nbd.server}))


"""
OF_ITS_KIND = PROVIDER.replace("ShelfVolumes", "NbdVolumes").replace("DiskKind.ISCSI", "DiskKind.NBD")
OF_ITS_KIND = OF_ITS_KIND.replace("iscsi", "nbd").replace("initiator", "server")
USED_OF_ITS_KIND = """
import asyncio
from dataclasses import replace
from pathlib import Path
from sterna.adapters.libvirt.xml.describe import describe
from sterna.adapters.libvirt.xml.render import render_live
from sterna.adapters.volumes.nbd import NbdVolumes
from sterna.bootstrap.host import volumes_of
from sterna.config import AgentSettings, load
from sterna.domain import untrusted
from sterna.domain.copying import CopyPlan, DestinationDisk
from sterna.domain.errors import BadRequest
from sterna.domain.model import Disk, DiskKind, NbdSource
from sterna.domain.status import Status
from sterna.sim.libvirt.guests import add_vm
from tests.saga.fleet import SimFleet

XML = '''<domain><name>vm</name><uuid>u</uuid><memory>1</memory><devices><disk type="network"><target dev="vdb"/>
<source protocol="nbd" name="x1"><host name="10.0.0.1"/></source></disk></devices></domain>'''
(disk,) = describe(XML).disks
assert disk.nbd == NbdSource(server="10.0.0.1", export="x1"), disk
there = DestinationDisk(target="vdb", kind=DiskKind.NBD, nbd=NbdSource(server="10.0.0.2", export="x1"))
(moved,) = describe(render_live(XML, CopyPlan(migration_id="m", epoch=1, destination_uri="", disks=(there,)))).disks
assert moved.nbd == there.nbd and moved.place == disk.place, moved
odd = disk.model_copy(update={"nbd": NbdSource(server="exec:rm", export="x1")})
for told, right in ((disk, True), (odd, False)):
    try:
        untrusted.vm(describe(XML).model_copy(update={"disks": (told,)}).model_dump(mode="json"))
        assert right
    except BadRequest as error:
        assert not right and "server" in error.message
Path("agent.toml").write_text('''host = "h"
[bus]
url = "nats://127.0.0.1:4222"
[migration]
address = "10.0.0.1"
''')
chosen = volumes_of(load(AgentSettings, Path("agent.toml")), None, None)
assert isinstance(next(v for v in chosen if v.handles(disk)), NbdVolumes), chosen
seen = []


class Watched(NbdVolumes):
    async def connect(self, disk):
        seen.append(disk.nbd)
        return await super().connect(disk)


async def scenario():
    async with fleet:
        for agent in fleet.agents.values():
            provider = Watched("10.0.0.2")
            object.__setattr__(agent._agent._host, "volumes", (provider, *agent._agent._host.volumes))
        vm = add_vm(fleet.world, "host1", "vm1", disks=("shared",))
        domain = fleet.world.hosts["host1"].domains[vm]
        both = (*domain.live.disks, disk)
        domain.live, domain.inactive = replace(domain.live, disks=both), replace(domain.inactive, disks=both)
        await fleet.start(vm)
        assert await fleet.ended() is Status.COMPLETED, fleet.agents["host1"].history(fleet.migration).failure
        domain = fleet.world.hosts["host2"].domains[vm]
        assert seen == [there.nbd] == [d.nbd for d in domain.live.disks if d.nbd], (seen, domain.live.disks)


fleet = SimFleet()
asyncio.run(fleet.clock.run(scenario()))
"""


def test_a_made_up_kind_of_disk_with_its_provider_touches_four_files_and_moves(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    model, forms, chooses = "domain/model.py", "adapters/libvirt/xml/disk_forms.py", "bootstrap/host.py"
    copy.insert(model, '    BLOCK = "block"', '    NBD = "nbd"\n')
    copy.insert(model, "class Reached(", SOURCE)
    copy.insert(model, "\n    @property\n    def way(", "    nbd: NbdSource | None = None\n")
    copy.insert(forms, "@dataclass(frozen=True)", "from sterna.domain.model import NbdSource\n\n\n")
    copy.insert(forms, "FORMS: Final", FORM)
    copy.insert(
        forms, "    DiskKind.RBD: Form(", '    DiskKind.NBD: Form("network", "nbd", _read_nbd, _write_nbd),\n'
    )
    copy.write("adapters/volumes/nbd.py", OF_ITS_KIND)
    copy.insert(
        chooses,
        "from sterna.adapters.volumes.shared_file",
        "from sterna.adapters.volumes.nbd import NbdVolumes\n",
    )
    copy.insert(
        chooses,
        "    volumes.append(SharedFileVolumes())",
        "    volumes.append(NbdVolumes(settings.migration.address))\n",
    )
    done = copy.run(USED_OF_ITS_KIND)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(copy.touched()) <= AT_MOST, copy.touched()
