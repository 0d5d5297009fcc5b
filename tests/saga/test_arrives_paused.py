"""A guest that does not run when its move is completed: the end says so (simulated: an I/O error, an operator)."""

from __future__ import annotations

import pytest

from sterna.domain.model import Data
from sterna.domain.report import build_report
from sterna.domain.status import Status
from sterna.sim.libvirt import qemu

from .fleet import SimFleet


def reason(fleet: SimFleet) -> str:
    ends: list[Data] = [
        e.data for e in fleet.agents["host1"].journal.entries(fleet.migration) if "status" in e.data
    ]
    return str(ends[-1]["reason"])


@pytest.mark.parametrize(
    ("libvirt", "words"), [("ioerror", "by an I/O error of a disk"), ("user", "by somebody"), ("", "")]
)
async def test_the_end_says_that_the_guest_is_paused(libvirt: str, words: str) -> None:
    fleet = SimFleet()

    def stop() -> None:
        host = fleet.world.hosts["host2"]
        (domain,) = (d for d in host.domains.values() if d.running)
        qemu.pause(fleet.world, host, domain, reason=libvirt, event="suspended")

    async def scenario() -> None:
        async with fleet:
            if libvirt:
                fleet.agents["host2"].rules.append(("activate-bindings", "before", stop))
            await fleet.start(fleet.vm())
            assert await fleet.ended() is Status.COMPLETED
            paused = f"; the guest arrived paused on host2, {words}"
            assert reason(fleet) == "complete on host2 and host1" + (paused if libvirt else "")
            known = fleet.agents["host1"].journal.get(fleet.migration)
            assert known is not None
            entries = [e for a in fleet.agents.values() for e in a.journal.entries(fleet.migration)]
            report = build_report(known[0], entries)
            assert report.guest == (f"paused {words} on host2" if libvirt else "")
            assert (report.downtime_ms is None) == (libvirt == "ioerror")

    await fleet.clock.run(scenario())
