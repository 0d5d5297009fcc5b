"""Phase 2: memory and local disks are copied; at its end the guest runs on the destination: the pivot.

M4 is one libvirt call that goes on when this agent dies. So `Copy` never trusts what that call returns. It asks
both hypervisors and lets `domain/whereabouts.py` decide. The same code starts a copy, joins one that was started
before this agent's restart, and finds one that is over.
"""

from __future__ import annotations

import contextlib
from functools import partial

from sterna.domain import calls, untrusted
from sterna.domain.entries.base import Done, Failure, NoPlan
from sterna.domain.entries.notes import (
    CopyFailed,
    CopyStarted,
    CopySucceeded,
    GaveUp,
    LibvirtSaid,
    RehearsedCopy,
    Waiting,
)
from sterna.domain.entries.source import AutostartBefore, Copied, DestinationAnswer, DisksToCopy, Owned, WayMade
from sterna.domain.errors import Cancelled, Permanent, Refused, SternaError
from sterna.domain.status import Status
from sterna.domain.step import Step
from sterna.domain.whereabouts import Finding, Verdict
from sterna.kit.tasks import both
from sterna.kit.waiting import Backoff
from sterna.migration.attempts import Attempts
from sterna.migration.context import Context
from sterna.migration.source import definition, left, postcopy, rollback, steering, unchanged
from sterna.migration.source.asking import unless_aborted
from sterna.migration.source.copy_plan import copy_plan
from sterna.migration.source.find_guest import look
from sterna.migration.source.watch import ASK_AGAIN_S, under_way, until_over, watch

SLOWEST_ASK_S = 2.0
SEE_LOGS = "libvirt's logs on both hosts say more: `journalctl -u libvirtd -u virtqemud`"
WAITING_COPY = "-copy"
"""Which note of the family `Waiting`: why the copy is not watched now."""


class SetMigrating(Step[Context, NoPlan, Done]):
    """M1: the status becomes `migrating`."""

    row, name = "M1", "set-migrating"
    reads_only = True

    async def do(self, ctx: Context, plan: NoPlan) -> Done:
        """Journal the status."""
        ctx.set_status(Status.MIGRATING, f"copying to {ctx.migration.destination}")
        return Done()


class FindLocalDisks(Step[Context, NoPlan, DisksToCopy]):
    """M2: the disks only the source can see are copied with the memory."""

    row, name = "M2", "find-local-disks"
    reads_only = True

    async def do(self, ctx: Context, plan: NoPlan) -> DisksToCopy:
        """Both sides must agree on which disks are copied, or nothing is."""
        ours = sorted(d.target for d in ctx.vm_before().disks if d.local and not d.carried)
        theirs = sorted(d.target for d in ctx.history.get(DestinationAnswer).disks if d.copied)
        if ours != theirs:
            raise Permanent(f"the source would copy {ours}, the destination prepared {theirs}")
        return DisksToCopy(copied=tuple(ours))


class TakeOwnership(Step[Context, AutostartBefore, Owned]):
    """Before M4: this migration's epoch into the domain's metadata, and autostart off.

    The epoch is the proof of ownership both hosts check; a source that rebooted with autostart on would start
    a second copy. Metadata cannot be changed while libvirt migrates.
    """

    name = "take-ownership"
    undo = (rollback.RestoreAutostart,)

    async def plan(self, ctx: Context) -> AutostartBefore:
        """What autostart is now: it may have been changed since P2, while the destination prepared."""
        return AutostartBefore(autostart=(await ctx.host.hypervisor.vm(ctx.vm_uuid)).autostart)

    async def do(self, ctx: Context, plan: AutostartBefore) -> Owned:
        """Write both; repeating is harmless. Raises Refused beside a job, for which libvirt would wait."""
        if keeps := await ctx.host.hypervisor.check_outgoing(ctx.vm_uuid):
            raise Refused(keeps)
        await ctx.host.hypervisor.mark(ctx.vm_uuid, ctx.migration.id, ctx.migration.epoch)
        if plan.autostart:
            await ctx.host.hypervisor.set_autostart(ctx.vm_uuid, False)
        return Owned(epoch=ctx.migration.epoch)


class Interlock(Step[Context, NoPlan, Done]):
    """Before M4: once the guest's state has left, its QEMU here cannot let it run again, whoever asks. libvirt
    would do that where the destination's answer is lost. From here on only Sterna can, and does so when both hosts
    have shown that the guest never ran on the destination.
    """

    name = "interlock"
    undo = (rollback.ReleaseInterlock,)

    async def do(self, ctx: Context, plan: NoPlan) -> Done:
        """Set it; repeating is harmless."""
        await ctx.host.hypervisor.interlock(ctx.vm_uuid, ctx.migration.epoch)
        return Done()


class MakeWay(Step[Context, NoPlan, WayMade]):
    """Before M4: the destination's taps make way for those that its libvirt makes with the incoming guest.

    So what libvirt knows of the guest afterwards is what it would know without Sterna, and its own tools can move,
    save and restore it (ADR 15). The switch keeps the ports, wired as they are.
    """

    name = "make-way"

    async def do(self, ctx: Context, plan: NoPlan) -> WayMade:
        """Ask for it; repeating is harmless. The destination learns what autostart was when it was cleared."""
        autostart = ctx.history.get(AutostartBefore).autostart
        call = calls.MakeWayThere(autostart=autostart)
        answer = await unless_aborted(ctx, ctx.peer.call(call.method, call.to_wire()))
        return untrusted.remark(WayMade, answer)


class Copy(Step[Context, NoPlan, Copied]):
    """M4, with M3 (watch), M5 (success) and M6 (failure): the step whose end is the pivot."""

    row, name = "M4", "copy"
    undo = (rollback.GiveBindingsBack, steering.RestoreDowntime)  # the guest itself: R0, before them
    settles_abort = True

    def lasts(self, ctx: Context) -> bool:
        """Once the copy has begun; what comes before may hang."""
        return ctx.history.has(CopyStarted)

    async def do(self, ctx: Context, plan: NoPlan) -> Copied:
        """Start or join the copy and see it to its end.

        Returns when the guest is the destination's. Raises Cancelled or Permanent when it stayed.
        """
        failure, backoff = "", Backoff(ASK_AGAIN_S, SLOWEST_ASK_S, factor=1.5)
        find = partial(look, ctx, Attempts(ctx, "looking for the guest"))
        attempts = Attempts(ctx, "watching the copy", WAITING_COPY)
        while True:
            finding = await find()
            if finding.verdict is Verdict.START:
                if ctx.abort.is_set():
                    raise Cancelled("aborted before the copy began")
                failure = await self._start(ctx, find)
                backoff.reset()
                continue
            if finding.verdict in (Verdict.ARRIVED, Verdict.ENDED_AT_DESTINATION):
                return await self._arrived(ctx, finding)
            if finding.verdict in (Verdict.STAYED, Verdict.ENDED_AT_SOURCE):
                raise await self._stayed(ctx, finding, failure)
            if finding.verdict is Verdict.STRANDED:
                if not ctx.peer_fenced:  # a declaration may be mistaken
                    left.note_stayed(ctx)
                await ctx.host.hypervisor.resume(ctx.vm_uuid, ctx.migration.epoch)
                continue
            with attempts.attempt():  # libvirt copies, whatever goes wrong here
                if await self._wait(ctx, finding, find):
                    backoff.reset()
                    continue
            await ctx.clock.sleep(backoff.seconds)
            backoff.grow()

    async def _start(self, ctx: Context, find: postcopy.Find) -> str:
        """Run the copy; libvirt's error message ('' for none)."""
        if keeps := await ctx.host.hypervisor.check_outgoing(ctx.vm_uuid):  # begun while the other host prepared
            raise Refused(keeps)
        made_of, _ = await both(steering.prepare(ctx), unchanged.refuse_if_changed(ctx))
        plan = copy_plan(ctx, made_of)
        sent = await ctx.host.hypervisor.sent(ctx.vm_uuid)
        digest, changes = await definition.digest(ctx), await definition.changes(ctx, plan)
        ctx.note(CopyStarted(sent_before=sent, definition=digest, changes=changes))
        try:
            async with ctx.host.hypervisor.events(ctx.vm_uuid) as events:
                await watch(ctx, find, lambda: ctx.host.hypervisor.migrate(ctx.vm_uuid, plan), events)
        except SternaError as error:
            ctx.note(LibvirtSaid(error=Failure.of(error)))
            return error.message
        return ""

    async def _wait(self, ctx: Context, finding: Finding, find: postcopy.Find) -> bool:
        """Whether a copy was under way, and was watched to its end; else it is to be asked again in a while."""
        ctx.note_change(Waiting(why=finding.why), row="M4")
        if finding.verdict is Verdict.HALF_GONE:
            with contextlib.suppress(SternaError):  # a host does not answer: asked again
                await postcopy.give_up(ctx, finding.why)
        elif under_way(await ctx.observe_here()):  # a former life started it, or its stream broke in post-copy
            await watch(ctx, find, lambda: until_over(ctx))
            return True
        return False

    async def _arrived(self, ctx: Context, finding: Finding) -> Copied:
        ended = finding.verdict is Verdict.ENDED_AT_DESTINATION
        job = None
        with contextlib.suppress(SternaError):  # the disks are counted on this side only; not worth a failure
            job = await ctx.host.hypervisor.completed_job(ctx.vm_uuid)
        ctx.note(CopySucceeded(why=finding.why, guest_ended=ended, job=job))
        return Copied(guest_ended=ended)

    async def _stayed(self, ctx: Context, finding: Finding, failure: str) -> SternaError:
        if ctx.history.has(CopyStarted):
            await left.has_left(ctx)  # journaled now: later its QEMU may be gone
        error = (ctx.history.find(LibvirtSaid) or LibvirtSaid()).error
        reason = failure or error.message
        ctx.note(CopyFailed(why=finding.why, libvirt=reason))
        if finding.verdict is Verdict.ENDED_AT_SOURCE:
            begun = ctx.history.has(CopyStarted)  # else it may run on a third host by now
            fix = "start the VM again on the source" if begun else "see where the VM is now"
            return Permanent(finding.why, fix=fix)
        if ctx.history.has(RehearsedCopy):
            return Cancelled("it was a rehearsal: the copy had begun, and everything is undone")
        if ctx.abort.is_set():
            return Cancelled("aborted while copying")
        if gave_up := ctx.history.find(GaveUp):
            return Permanent(f"the copy was given up: {gave_up.why}", fix=gave_up.fix or steering.MORE_LEEWAY)
        return Permanent(f"the copy failed: {reason or finding.why}", fix=error.fix or SEE_LOGS)
