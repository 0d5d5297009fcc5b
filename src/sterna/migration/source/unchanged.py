"""The VM must have the disks and NICs that its destination was prepared for, when its copy begins.

Somebody may take a snapshot, eject a disc or plug a NIC after P2. Between the last look and libvirt's job nobody
holds the guest, so there is a look once the job has begun: from then on libvirt refuses such changes.
"""

from __future__ import annotations

from sterna.domain.entries.notes import GaveUp
from sterna.domain.errors import Permanent
from sterna.domain.unchanged import changes
from sterna.migration.attempts import Attempts
from sterna.migration.context import Context
from sterna.migration.source import postcopy

START_AGAIN = "start the migration again: it takes the VM as it is now"
LOOK_EVERY_S = 0.1


async def refuse_if_changed(ctx: Context) -> None:
    """Raises Permanent where the VM has changed since P2, and what the hypervisor and the switch raise."""
    if found := await _changes(ctx):
        raise Permanent(found, fix=START_AGAIN)


async def give_up_if_changed(ctx: Context) -> None:
    """Beside a copy: once libvirt has begun, compare; where the VM has changed, have libvirt give the copy up until
    it has."""
    attempts = Attempts(ctx, "comparing the VM with what the destination prepared")
    while not postcopy.begun(ctx):  # seen before, or too late
        with attempts.attempt():
            if (await ctx.observe_here()).job_active:
                found = await _changes(ctx)
                if not found:
                    return
                ctx.note_once(GaveUp(why=found, fix=START_AGAIN))
                await ctx.host.hypervisor.abort(ctx.vm_uuid)
        await ctx.clock.sleep(LOOK_EVERY_S)


async def _changes(ctx: Context) -> str:
    """In words; '' for none."""
    before, now = ctx.vm_before(), await ctx.host.hypervisor.vm(ctx.vm_uuid)
    known = {nic.mac: nic for nic in before.nics}
    # One whose port is gone was not moved elsewhere: its definition alone may not name the bridge.
    ports = [await ctx.host.vif.describe(nic) or known.get(nic.mac, nic) for nic in now.nics]
    found = changes(before, now.model_copy(update={"nics": tuple(ports)}))
    return (
        f"the VM was changed while {ctx.migration.destination} prepared for it: {', '.join(found)}" if found else ""
    )
