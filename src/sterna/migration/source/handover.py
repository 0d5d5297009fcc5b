"""The hand-over that libvirt does not finish: the destination runs the guest, its answer never reaches the source.

libvirt on the source then waits until its keep-alive runs out (some 30 s). It concludes that the hand-over failed,
and lets its own paused guest run again. Then two copies run, unless a lock on a disk's file prevents it. libvirt
leaves that to "the lock manager plugins", and a volume over the network has none. Sterna can ask the destination by
another way, and ends the paused guest on the source before that. Called by `watch.py` while it watches a copy.
"""

from __future__ import annotations

import asyncio
import contextlib

from sterna.domain.departure import Departure
from sterna.domain.entries.notes import HandOverLate, PortsSwitched, Saw, Waiting
from sterna.domain.errors import SternaError
from sterna.domain.model import GuestState, Observation
from sterna.domain.whereabouts import left_behind
from sterna.migration.attempts import Attempts
from sterna.migration.context import Context
from sterna.migration.source import left

WAITING_LIBVIRT = "-libvirt"
"""Which note of the family `Waiting`: why nothing is known of the copy here."""
LEAVES = ("suspended-migrated", "suspended-postcopy")
"""The source's events that show the switch-over: the earliest there are."""
LEAVING = "leaving"
"""Topic of the hint that a migration's guest is paused on its source."""
NETWORK_GRACE_S = 3.0
"""How long a copy that succeeded waits for the network service's answer; F7 asks again in any case."""
LOOK_EVERY_S = 3.0
"""A healthy hand-over is over within two seconds of the source's pause. Seen twice in a row it is late, and 6 s are
well within libvirt's keep-alive."""

LOOK_ANYWAY_ROUNDS = 4
"""Without an event the second of two looks comes 15 s after the pause at the latest: within the keep-alive."""


async def guard(ctx: Context, heard: left.Heard) -> None:
    """Return when the source's paused guest was ended here as libvirt did not; in a healthy hand-over never.
    `heard` learns of a guest that has left, before its end here is an event like any other."""
    attempts, late, rounds = Attempts(ctx, "looking at the hand-over"), False, 0
    while True:
        await ctx.clock.sleep(LOOK_EVERY_S)
        # Without a reason as well, now and then: the event may be missed, or older than the agent's last restart.
        reason = late or ctx.history.has(Saw, "suspended-migrated") or rounds % LOOK_ANYWAY_ROUNDS == 0
        rounds += 1
        if not reason:
            continue
        was_late, late = late, False  # a look that fails decides nothing
        with attempts.attempt():
            late = await _left_behind(ctx)
            heard.may_have_left |= late
            if late and was_late:
                await ctx.host.hypervisor.end_leftover(ctx.vm_uuid, ctx.migration.epoch)
                ctx.note_once(HandOverLate(why=f"{ctx.migration.destination} runs the guest"))
                return


async def _left_behind(ctx: Context) -> bool:
    here = await ctx.observe_here()
    _note_silence(ctx, here)
    if not left_behind(here, await ctx.observe_there(), epoch=ctx.migration.epoch):
        return False
    return await left.has_left(ctx) is Departure.LEFT


def _note_silence(ctx: Context, here: Observation) -> None:
    """Report where libvirt does not answer here: nothing else shows why the copy seems to stop."""
    host = ctx.host.name
    if here.state is GuestState.UNKNOWN:
        why = Waiting(why=f"libvirt on {host} does not say where the guest is: {here.reason}")
    elif ctx.history.find(Waiting, WAITING_LIBVIRT) is not None:
        why = Waiting(why=f"libvirt on {host} answers again; the copy continues")
    else:
        return
    ctx.note_change(why, WAITING_LIBVIRT, row="M4")


async def announce_early(ctx: Context) -> None:
    """When the guest is paused, let the destination announce its MACs (RARP, ARP, neighbour discovery). Frames that
    arrive before it resumes wait in its new port, and are not lost at the old one. A hint: without it, the MACs are
    announced when the guest runs there."""
    await ctx.hints.announce(f"{LEAVING}.{ctx.host.name}.{ctx.migration.id}", {})


async def announce_again(ctx: Context) -> None:
    """R6: the guest stayed, and its MACs may have been announced at the destination. Nothing depends on it: the
    guest's own frames do the same."""
    for nic in ctx.vm_before().nics:
        with contextlib.suppress(SternaError):
            await ctx.host.vif.announce(nic)


async def switch_network(ctx: Context) -> None:
    """At the switch-over, the ports become the destination's at the network service. Nothing waits for it: the
    destination asks for the same when the guest runs there, and F7 until it holds."""
    await ctx.leaves.wait()
    attempts = Attempts(ctx, "notifying the network service")
    while True:
        with attempts.attempt():
            await ctx.host.network.switch(ctx.vm_before(), *ctx.network_hosts)
            if ctx.asked_network:
                ctx.note_once(PortsSwitched(network=ctx.asked_network))
            return
        await ctx.clock.sleep(LOOK_EVERY_S / 10)


async def let_end(ctx: Context, network: asyncio.Future[None]) -> None:
    """Wait a little for `switch_network`, if the guest has left."""
    if not ctx.leaves.is_set():
        return
    patience = asyncio.ensure_future(ctx.clock.sleep(NETWORK_GRACE_S))
    try:
        await asyncio.wait((network, patience), return_when=asyncio.FIRST_COMPLETED)
    finally:
        patience.cancel()
