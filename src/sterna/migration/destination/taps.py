"""The taps that P10 makes ahead of the guest, and how they go again."""

from __future__ import annotations

from sterna.domain.entries.destination import TapsToMake
from sterna.domain.entries.destination_notes import AutostartAtSource
from sterna.domain.entries.source import WayMade
from sterna.domain.model import Nic
from sterna.migration.context import Context


async def make_way(ctx: Context, autostart: bool) -> WayMade:
    """The destination's half of `MakeWay`. Raises Conflict, Unreachable."""
    ctx.note_once(AutostartAtSource(on=autostart))
    nics = taps_made(ctx)
    for nic in nics:
        await ctx.host.vif.make_way(nic)
    return WayMade(taps=tuple(nic.device for nic in nics))


def taps_made(ctx: Context) -> list[Nic]:
    """The NICs whose tap P10 meant to make here, each with its `device`."""
    plan = ctx.history.find(TapsToMake)
    return [tap.nic.model_copy(update={"device": tap.device}) for tap in (plan.taps if plan else ())]


async def unplug_taps(ctx: Context, *, for_good: bool = True) -> None:
    """Remove the taps P10 meant to make here, made or not, if they are still this VM's."""
    for nic in taps_made(ctx):
        port = await ctx.host.vif.describe(nic)
        # without a port too: a crash in between may have left the bare tap
        if port is None or (port.device in (None, nic.device) and port.port_id == nic.port_id):
            bridge = (port and port.bridge) or nic.bridge
            await ctx.host.vif.unplug(nic.model_copy(update={"bridge": bridge}), for_good=for_good)
