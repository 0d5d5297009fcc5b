"""A host that somebody has taken over is asked to move a VM of its own, and names what belongs to others.

The stage is that of `test_hostile_agent.py`; docs/reference/hostile-agent.md has a row for this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sterna.adapters.identity.permits import OwnPermits
from sterna.domain.model import Data
from sterna.rpc.subjects import call_subject, cast_subject
from sterna.sim.libvirt.guests import add_vm
from sterna.sim.libvirt.hypervisor import SimHypervisor
from tests.contract.guarded import Guarded
from tests.contract.hostile_messages import everything, message
from tests.contract.hostile_stage import CLOCK, HONEST, HOST3, Stage, folder_of, reply_to, stage_on
from tests.narrowing import not_none
from tests.rights import CONTROLLER


def lies(stage: Stage, victim: str, at: str) -> dict[str, Callable[[Data], Data]]:
    """What P3 says in place of the truth."""
    definition = stage.world.hosts[at].domains[victim].definition
    port = definition.nics[0].port_id
    target = next(not_none(disk.iscsi).target for disk in definition.disks if disk.iscsi is not None)

    def vm(field: str, **more: Any) -> Callable[[Data], Data]:
        return lambda said: said | {"vm": said["vm"] | {field: [one | more for one in said["vm"][field]]}}

    def volume(**more: Any) -> Callable[[Data], Data]:
        def change(said: Data) -> Data:
            (disk,) = said["vm"]["disks"]
            named = disk | {"iscsi": disk["iscsi"] | {"target": target}} | more
            return said | {"vm": said["vm"] | {"disks": [named]}}

        return change

    def names(*hosts: str) -> Callable[[Data], Data]:
        options = {"network_hosts": hosts}
        return lambda said: (
            said | {"migration": said["migration"] | {"options": said["migration"]["options"] | options}}
        )

    return {
        "port": vm("nics", port_id=port),
        "volume": volume(),
        "volume of nobody": volume(vm_uuid=None),
        "volume of its VM": volume(vm_uuid=victim),
        "attachment": vm("disks", attachment_id="00000000-0000-4000-8000-00000000dead"),
        "name of the source": names(at, ""),
        "name of the destination": names("", at),
    }


async def test_what_a_migration_of_its_own_names_of_others_stays_theirs(tmp_path: Path) -> None:
    """A controller has asked for it. Before each, and after its rollback, everything else is the same."""
    async with stage_on(Guarded(tmp_path)) as stage:
        mine = add_vm(stage.world, HOST3.name, "mine", disks=("iscsi",))
        truth = (await SimHypervisor(stage.world, HOST3.name).vm(mine)).model_dump(mode="json")
        permits = OwnPermits(folder_of(stage.guarded, CONTROLLER), CLOCK)
        theirs = stage.world.snapshot
        before = {name: theirs(name) for name in HONEST}
        tried = 0
        for victim, at in ((stage.moved, "host2"), (stage.moving, "host1")):
            for what, lie in lies(stage, victim, at).items():
                tried += 1
                asked = stage.forged(id=f"own-{tried}", vm_uuid=mine, source=HOST3.name, epoch=tried, permit="")
                asked = asked.model_copy(update={"permit": await permits.issue(asked)})
                told = everything(stage, asked.model_dump(mode="json")) | {"vm": truth}
                for kind, method, subject, params in (
                    ("call", "pre_live_migration", call_subject, lie(told)),
                    ("cast", "rollback_live_migration_at_destination", cast_subject, told),
                ):
                    words = message(method, (asked.id, asked.epoch, params), kind)
                    reply = await reply_to(stage, subject("host2", HOST3.name), words)
                    assert kind == "cast" or reply.kind == "error", what
                await _settled(stage)
                assert {name: theirs(name) for name in HONEST} == before, what
        await stage.answers()
        await stage.goes_on()


async def _settled(stage: Stage) -> None:
    """host2 has nothing open but the migration that waits."""
    async with asyncio.timeout(20):
        while stage.journals["host2"].inbox() or len(stage.journals["host2"].open()) > 1:  # noqa: ASYNC110 - real time
            await asyncio.sleep(0.02)


def test_it_is_on_the_page() -> None:
    page = Path(__file__).parents[2] / "docs/reference/hostile-agent.md"
    assert "ports, volumes and names of others" in page.read_text(encoding="utf-8")
