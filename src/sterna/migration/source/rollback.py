"""The rollback on the source: R0-R4, R6 and R8.

Every step is retried for as long as it takes. Each copes with a `do` that stopped anywhere, or never began.
"""

from __future__ import annotations

from sterna.domain import calls, untrusted
from sterna.domain.entries.base import Done, NoPlan
from sterna.domain.entries.notes import ChangedMeanwhile, CopyStarted, PortsSwitched, Saw, WroteOffPeer
from sterna.domain.entries.source import (
    AutostartBefore,
    AutostartRestored,
    BindingsGivenBack,
    BothAsked,
    ConnectionsFound,
    ConnectionsRemoved,
    DestinationAsked,
    DestinationBindingsWithdrawn,
    DevicesToDetach,
    RollbackCast,
    Snapshot,
    SourceProven,
    TokensLeft,
    TokensToLeave,
)
from sterna.domain.errors import (
    Cancelled,
    Conflict,
    NotFound,
    Permanent,
    SternaError,
    StorageSilent,
    Temporary,
    Unknown,
    Unreachable,
)
from sterna.domain.journal import Kind
from sterna.domain.model import Disk, DiskKind, GuestState, Observation, Vm
from sterna.domain.plugs import plug_type
from sterna.domain.status import Status
from sterna.domain.step import PivotPassed, Step
from sterna.domain.whereabouts import GONE, MIGRATED, MIGRATION_PAUSES, PASSED, Finding, Verdict, locate
from sterna.migration.context import Context
from sterna.migration.source import dead_peer, handover, left
from sterna.migration.source.find_guest import with_reasons
from sterna.migration.source.reports import forgotten, wait_report

R3_PATIENCE_S = 10.0
UNDEFINED = "its definition was removed"
WIRED_PATIENCE_S = 10.0
"""A network agent wires a port within about two seconds; one that is away must not hold the rest up."""


class AskBoth(Step[Context, NoPlan, BothAsked]):
    """R0: ask both hypervisors; end the incoming guest only if it never ran there and the source's is alive."""

    row, name = "R0", "ask-both-hypervisors"

    async def do(self, ctx: Context, plan: NoPlan) -> BothAsked:
        """Both answers. Raises Temporary until the guest is settled here, PivotPassed if it has arrived."""
        here, there = await ctx.observe_here(), await ctx.observe_there()
        epoch, begun = ctx.migration.epoch, ctx.history.has(CopyStarted)
        finding = dead_peer.judge(ctx, here, there)
        if finding is None and not begun:
            finding = _without_a_copy(here, there, epoch)
        finding = finding or locate(
            here, there, epoch=epoch, started=True, handed_over=ctx.handed_over, switching=ctx.switching
        )
        finding = await left.borne_out(ctx, finding)
        if finding.verdict in PASSED:
            raise PivotPassed(finding.why)  # no rollback from there, whatever turned it back
        if finding.verdict is Verdict.ENDED_AT_SOURCE and here.state is GuestState.PAUSED:
            await ctx.host.hypervisor.end_leftover(ctx.vm_uuid, epoch)
            raise Temporary("ending the source's paused copy", delay_s=0.2)
        if here.job_active and begun:
            await ctx.host.hypervisor.abort(ctx.vm_uuid)
            raise Temporary("waiting for libvirt to cancel the copy", delay_s=0.5)
        if finding.verdict is Verdict.STRANDED:
            if not ctx.peer_fenced:
                left.note_stayed(ctx)
            await ctx.host.hypervisor.resume(ctx.vm_uuid, ctx.migration.epoch)
            raise Temporary("the source's guest was paused by the failed copy: resuming it")
        settled = finding.verdict in (Verdict.STAYED, Verdict.ENDED_AT_SOURCE)
        if not settled:
            if finding.verdict is Verdict.DOUBT:
                ctx.set_status(Status.ERROR, finding.why)
            raise Temporary(with_reasons(finding, here, there).why)
        if there.state is GuestState.PAUSED and here.state is GuestState.RUNNING:
            await ctx.ask(calls.EndIncoming(vm=ctx.vm_uuid))
        return BothAsked(source=here, destination=there)


def _without_a_copy(here: Observation, there: Observation, epoch: int) -> Finding:
    """R0 of a migration whose copy was never begun: what libvirt does with the guest was not started by this
    migration, wherever the guest goes."""
    if there.state is GuestState.RUNNING or there.epoch == epoch:
        # there is no way forward, and R5 would remove it
        return Finding(Verdict.DOUBT, "the guest is on the destination, where it was moved without Sterna")
    if here.state is GuestState.UNKNOWN:
        return Finding(Verdict.WAIT, "the source's hypervisor does not answer")
    if here.job_active:
        return Finding(Verdict.WAIT, "libvirt runs a migration that Sterna did not start: waiting for its end")
    if here.state in GONE:
        return Finding(Verdict.ENDED_AT_SOURCE, "the guest left the source before this migration's copy began")
    return Finding(Verdict.STAYED, "the guest is on the source, and its copy was never begun")


class SetRollingBack(Step[Context, NoPlan, Done]):
    """R1: the status becomes `rolling-back`."""

    row, name = "R1", "set-rolling-back"

    async def do(self, ctx: Context, plan: NoPlan) -> Done:
        """Journal the status with the reason it failed for."""
        ctx.set_status(Status.ROLLING_BACK, ctx.history.failure.message)
        return Done()


class DropTokens(Step[Context, NoPlan, TokensLeft]):
    """Undo of P2: no token file is left beside a disk."""

    name = "drop-tokens"

    async def do(self, ctx: Context, plan: NoPlan) -> TokensLeft:
        """Remove those this migration may have left. The audit finds those that cannot be removed now."""
        left, put = [], ctx.history.find(TokensToLeave)
        for path in put.paths if put else ():
            try:
                await ctx.host.storage.drop_token(path, ctx.token)
            except (StorageSilent, Permanent):
                left.append(path)
        return TokensLeft(left=tuple(left))


class ReleaseInterlock(Step[Context, NoPlan, Done]):
    """Undo of the interlock: R0 has proven that the guest is the source's."""

    name = "release-interlock"

    async def do(self, ctx: Context, plan: NoPlan) -> Done:
        """Take it away."""
        await ctx.host.hypervisor.release_interlock(ctx.vm_uuid, ctx.migration.epoch)
        return Done()


class AttachDevices(Step[Context, NoPlan, Done]):
    """Undo of the detaching before M1: the guest has its virtual functions again."""

    name = "attach-devices"

    async def do(self, ctx: Context, plan: NoPlan) -> Done:
        """Those it may have lost; not for a guest that has ended."""
        lost = ctx.history.find(DevicesToDetach)
        for nic in lost.nics if lost else ():
            if (await ctx.host.hypervisor.observe(ctx.vm_uuid)).state not in GONE:
                await ctx.host.hypervisor.attach_nic(ctx.vm_uuid, nic)
        return Done()


class RestoreAutostart(Step[Context, NoPlan, AutostartRestored]):
    """Undo of the ownership step: autostart as it was."""

    name = "restore-autostart"

    async def do(self, ctx: Context, plan: NoPlan) -> AutostartRestored:
        """Set it again where it was set: not for a guest that is off and may be started elsewhere by now."""
        before = ctx.history.find(AutostartBefore)
        was_on = before is not None and before.autostart
        here = await ctx.host.hypervisor.observe(ctx.vm_uuid)
        if here.state is GuestState.ABSENT or (here.state is GuestState.SHUTOFF and here.reason == MIGRATED):
            return AutostartRestored(autostart=False, why="the VM has been taken away from here")
        if was_on and await self._may_be_elsewhere(ctx):
            why = "the guest is off, and one of the two hosts was declared dead"
            return AutostartRestored(autostart=False, why=why)
        if was_on:
            await ctx.host.hypervisor.set_autostart(ctx.vm_uuid, True)
        return AutostartRestored(autostart=was_on)

    async def _may_be_elsewhere(self, ctx: Context) -> bool:
        if (await ctx.host.hypervisor.observe(ctx.vm_uuid)).state not in GONE:
            return False
        return ctx.peer_fenced or await ctx.ask_fate() is not None


class GiveBindingsBack(Step[Context, NoPlan, BindingsGivenBack]):
    """R6, the first part: what was activated for the destination at the switch-over is the source's again.

    A network agent takes the port of a deactivated binding off its switch: it is put back as P2 found it.
    """

    row, name = "R6", "give-bindings-back"

    async def do(self, ctx: Context, plan: NoPlan) -> BindingsGivenBack:
        """Before all else: the guest runs here, and cannot be reached until this is done. An activation request
        that was sent at the switch-over can reach Neutron after our check: so it is checked again. If none was
        sent, there is nothing to wait for: agents do not report ports that are marked `migrating_to`.
        """
        vm, began, plugged = ctx.vm_before(), ctx.clock.monotonic_ms(), list[str]()
        network = ctx.asked_network
        while True:
            given_back = await ctx.host.network.give_back(vm, *ctx.network_hosts)
            plugged += await replug(ctx)
            if not given_back and not _left(ctx):
                return BindingsGivenBack(plugged=tuple(plugged), network=network)
            wired = await ctx.host.network.wired(vm, ctx.network_hosts[0])
            await handover.announce_again(ctx)
            if wired or ctx.clock.monotonic_ms() - began > WIRED_PATIENCE_S * 1000:
                # its agent may be away: nothing waits for it
                return BindingsGivenBack(plugged=tuple(plugged), wired=wired, network=network)
            await ctx.clock.sleep(0.2)


def _left(ctx: Context) -> bool:
    """Has this life of the agent, or an earlier one, seen the guest stop here for the switch-over?"""
    history = ctx.history
    seen = history.has(PortsSwitched) or any(history.has(Saw, kind) for kind in handover.LEAVES)
    return ctx.leaves.is_set() or seen


async def replug(ctx: Context) -> list[str]:
    """Put the guest's NICs that lost their port back on their switch, where their device is still there."""
    put_back = []
    for nic in ctx.vm_before().nics:
        if await ctx.host.vif.describe(nic) is None and await ctx.host.vif.put_back(nic):
            put_back.append(nic.mac)
    return put_back


class WithdrawDestinationBindings(Step[Context, NoPlan, DestinationBindingsWithdrawn]):
    """R6, undo of the bindings made before P3: the destination's are deleted, and the ports no longer marked as
    migrating."""

    row, name = "R6", "withdraw-destination-bindings"

    async def do(self, ctx: Context, plan: NoPlan) -> DestinationBindingsWithdrawn:
        """Made or not. The destination does the same at its own R6, in case this host never can."""
        await ctx.host.network.withdraw(ctx.vm_before(), *ctx.network_hosts)
        return DestinationBindingsWithdrawn(network=ctx.asked_network)


class FindConnections(Step[Context, NoPlan, ConnectionsFound]):
    """R2: which of the VM's volumes the destination may have connected."""

    row, name = "R2", "find-destination-connections"
    reads_only = True

    async def do(self, ctx: Context, plan: NoPlan) -> ConnectionsFound:
        """Those not copied: the copied ones are files the destination removes at R7."""
        volumes = (d for d in ctx.vm_before().disks if not d.local and d.kind is not DiskKind.EMPTY)
        return ConnectionsFound(disks=tuple(d.target for d in volumes))


class RemoveVolumeConnection(Step[Context, NoPlan, ConnectionsRemoved]):
    """R3: the destination disconnects the volumes and terminates their connections.

    A destination that cannot be asked for `R3_PATIENCE_S`, or fails, does it when R4's cast reaches it: errors of
    its volume service must not keep the source's VM locked.
    """

    row, name = "R3", "remove-volume-connection"

    async def do(self, ctx: Context, plan: NoPlan) -> ConnectionsRemoved:
        """Call; or leave it to the cast."""
        if ctx.untouched:
            return ConnectionsRemoved(untouched=True)
        began = ctx.clock.monotonic_ms()
        while True:
            try:
                answer = await ctx.peer.call(calls.RemoveVolumeConnection.method, {})
                return untrusted.remark(ConnectionsRemoved, answer)
            except (Unreachable, Unknown) as error:
                if ctx.peer_fenced or ctx.clock.monotonic_ms() - began > R3_PATIENCE_S * 1000:
                    return ConnectionsRemoved(deferred=error.message)
            except Conflict:  # the guest is there
                raise
            except SternaError as error:  # it has tried for as long as it is worth
                return ConnectionsRemoved(deferred=error.message)
            await ctx.clock.sleep(0.5)


class CastRollback(Step[Context, NoPlan, RollbackCast]):
    """R4: the destination undoes the rest, whenever it is there."""

    row, name = "R4", "cast-rollback"

    async def do(self, ctx: Context, plan: NoPlan) -> RollbackCast:
        """Into the outbox; a destination that P3 never reached has nothing to undo."""
        if ctx.untouched:
            return RollbackCast(untouched=True)
        ctx.peer.cast("rollback_live_migration_at_destination", {}, key="R4")
        return RollbackCast()


class ProveSource(Step[Context, NoPlan, SourceProven]):
    """R8: the VM is as it was, as far as Sterna had a hand in it; proven, it may migrate again."""

    row, name = "R8", "prove-source"

    async def do(self, ctx: Context, plan: NoPlan) -> SourceProven:
        """Compare the VM with P2's snapshot. Raises Temporary while something is missing that the rollback owes.

        Sterna takes no disk from a guest here, and of its NICs only functions. Any other difference was made by
        others in the meantime (a disc ejected, a NIC detached), and is not changed back.
        """
        if ctx.history.has(Snapshot):
            changed = await self._compare(ctx)
            if changed:
                ctx.note_once(ChangedMeanwhile(what=tuple(changed)))
        ctx.write(Kind.RELEASED, row="R8")
        return SourceProven()

    async def _compare(self, ctx: Context) -> list[str]:
        before = ctx.vm_before()
        try:
            now = await ctx.host.hypervisor.vm(ctx.vm_uuid)
        except NotFound:
            # R0 has proven that it runs nowhere else. A transient guest whose QEMU ended leaves no definition; that
            # of any other was removed by others: Sterna undefines nothing on the source before the pivot.
            return [UNDEFINED] if before.persistent else []
        ended = now.state is GuestState.SHUTOFF  # R0 has proven that it ran nowhere else: it ended here, by itself
        by_a_copy = now.reason in MIGRATION_PAUSES and ctx.history.has(CopyStarted)
        paused_by_others = now.state is GuestState.PAUSED and not by_a_copy
        if not ended and now.state is not before.state and not paused_by_others:
            raise Temporary(f"the guest is {now.state} on the source, it was {before.state}")
        changed = [
            f"disk {disk.target} is not what it was before" for disk in before.disks if not _as_was(disk, now)
        ]
        for nic in before.nics if not ended else ():
            function = plug_type(nic).hot_unplugged
            found = next((n for n in now.nics if n.mac == nic.mac and plug_type(n).hot_unplugged == function), None)
            if found is None and not function:
                changed.append(f"NIC {nic.mac} was detached")
            elif await ctx.host.vif.describe(found or nic) is None:
                raise Temporary(f"NIC {nic.mac} is not plugged on the source any more", fix="plug it, or detach it")
        return changed


def _as_was(disk: Disk, now: Vm) -> bool:
    found = next((d for d in now.disks if d.target == disk.target), None)
    return found is not None and found.way | {"kind": disk.kind} == disk.way


class AwaitRollbackAtDestination(Step[Context, NoPlan, Done]):
    """After R8: `failed` (or `cancelled`) once the destination has reported R7; until then `rolling-back`."""

    name = "await-rollback-at-destination"

    async def do(self, ctx: Context, plan: NoPlan) -> Done:
        """Wait for the report, for as long as it takes; a destination that P3 never reached has none to give."""
        if ctx.history.has(DestinationAsked) and not ctx.untouched:
            await wait_report(ctx, "R7", "failed")
        error = ctx.history.failure
        final = Status.CANCELLED if error.code == Cancelled.code else Status.FAILED
        why = error.message
        if changed := ctx.history.find(ChangedMeanwhile):
            why += f"; the VM was changed during the migration: {', '.join(changed.what)}"
        if ctx.history.has(WroteOffPeer):
            why += f"; {ctx.migration.destination} was declared dead and undoes its half if it ever comes back"
        elif lost := forgotten(ctx, "R7"):
            why += f"; {lost}"
        ctx.set_status(final, why)
        ctx.write(Kind.CLOSED)
        return Done()
