"""One more step with an undo touches three files of the source, and survives failures and restarts by itself.

What is added in a copy here, and runs there, is what docs/contributing/adding-a-step.md tells to do.
"""

from __future__ import annotations

from pathlib import Path

from tests.shape.seams import AT_MOST, Copy

ENTRIES = '''

class BellToRing(Plan):
    """Before M1: how often the bell is about to ring."""

    entry = "ring-bell"

    times: int


class BellRung(Outcome):
    """Before M1: the name that was called."""

    entry = "ring-bell"

    name: str
'''
STEP = '''"""A made-up step: rings a bell once for each CPU of the guest, and silences it in a rollback."""

from __future__ import annotations

from sterna.domain.entries.base import Done, NoPlan
from sterna.domain.entries.source import BellRung, BellToRing
from sterna.domain.step import Step
from sterna.migration.context import Context

BELL: dict[str, int] = {}


class SilenceBell(Step[Context, NoPlan, Done]):
    """Undo of the ringing, whether or not it came to that."""

    name = "silence-bell"

    async def do(self, ctx: Context, plan: NoPlan) -> Done:
        BELL.pop(ctx.vm_uuid, None)
        return Done()


class RingBell(Step[Context, BellToRing, BellRung]):
    """Before M1."""

    name = "ring-bell"
    undo = (SilenceBell,)

    async def plan(self, ctx: Context) -> BellToRing:
        return BellToRing(times=ctx.vm_before().vcpus)

    async def do(self, ctx: Context, plan: BellToRing) -> BellRung:
        BELL[ctx.vm_uuid] = plan.times
        return BellRung(name=ctx.migration.vm_name)
'''
USED = """
import asyncio
from sterna.domain.entries.source import BellRung, BellToRing
from sterna.domain.status import Status
from sterna.migration.flow import REHEARSAL, SOURCE
from sterna.migration.rollback_order import at_source
from sterna.migration.source.bell import BELL, RingBell, SilenceBell
from sterna.sim.libvirt.guests import add_vm
from tests.saga.fleet import SimFleet

assert RingBell in SOURCE.until_pivot and RingBell in REHEARSAL.until_pivot
assert SilenceBell in at_source(RingBell)


async def scenario(fleet, action, ends):
    async with fleet:
        source, vm = fleet.agents["host1"], add_vm(fleet.world, "host1", "vm1")
        if action:
            source.rules.append(("ring-bell", "after", action))
        await fleet.start(vm)
        assert await fleet.ended() is ends
        assert not action or source.applied
        history = source.history(fleet.migration)
        assert history.get(BellToRing).times >= 1
        if ends is Status.COMPLETED:
            assert history.get(BellRung).name == "vm1" and BELL == {vm: history.get(BellToRing).times}
        else:
            assert BELL == {} and "silence-bell" in history.results


for action, ends in (("", Status.COMPLETED), ("kill", Status.COMPLETED), ("permanent", Status.FAILED)):
    BELL.clear()
    fleet = SimFleet()
    asyncio.run(fleet.clock.run(scenario(fleet, action, ends)))
"""


def test_a_made_up_step_touches_three_files_and_is_undone(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    copy.append("domain/entries/source.py", ENTRIES)
    copy.write("migration/source/bell.py", STEP)
    copy.insert(
        "migration/flow.py",
        "from sterna.migration.source.copy",
        "from sterna.migration.source.bell import RingBell\n",
    )
    copy.insert(
        "migration/flow.py", "        SetMigrating,  # M1", "        RingBell,  # once the destination is ready\n"
    )
    done = copy.run(USED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(copy.touched()) == 3 < AT_MOST, copy.touched()
