"""One more provider of volumes touches four files of the source at most.

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

    async def check(self, disk: Disk) -> list[Refusal]:
        return []

    async def admitted(self, disk: Disk) -> bool:
        return disk.target in self.admitted_here

    async def attach(self, disk: Disk) -> Disk:
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
from sterna.sim.libvirt.life import add_vm
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
    async def attach(self, disk):
        asked.append(("attach", disk.target))
        fleet.world.admit(disk.iscsi.target, self._initiator, "host2")
        return await super().attach(disk)

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
