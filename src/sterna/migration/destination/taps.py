"""The taps that P10 makes ahead of the guest, and how they go again."""

from __future__ import annotations

from sterna.domain.entries.destination import TapsToMake, VifsPlugged
from sterna.domain.entries.destination_notes import AutostartAtSource
from sterna.domain.entries.source import WayMade
from sterna.domain.errors import Conflict
from sterna.domain.model import Nic
from sterna.domain.plugs import of_vm, vm_of
from sterna.migration.context import Context


async def make_way(ctx: Context, autostart: bool) -> WayMade:
    """The destination's half of `MakeWay`. Raises Conflict, also before P10 is done; Unreachable."""
    if not ctx.history.has(VifsPlugged):
        raise Conflict(f"{ctx.host.name} has not plugged the guest's NICs: no tap of its makes way")
    ctx.note_once(AutostartAtSource(on=autostart))
    nics = taps_made(ctx)
    for nic in nics:
        await ctx.host.vif.make_way(nic)
    return WayMade(taps=tuple(nic.device for nic in nics))


def taps_made(ctx: Context) -> list[Nic]:
    """The NICs whose tap P10 meant to make here, each with its `device`."""
    plan = ctx.history.find(TapsToMake)
    nics = (tap.nic.model_copy(update={"device": tap.device}) for tap in (plan.taps if plan else ()))
    return [of_vm(nic, ctx.vm_uuid) for nic in nics]


def _is_planned(port: Nic, nic: Nic) -> bool:
    """Is it the port that P10 made, or meant to make? Port id and MAC are the source's word; the VM is not."""
    same_device = port.device in (None, nic.device) and port.port_id == nic.port_id
    return same_device and vm_of(port.external_ids) == vm_of(nic.external_ids)


async def unplug_taps(ctx: Context, *, for_good: bool = True) -> None:
    """Remove the taps P10 meant to make here, made or not, if they are still this VM's."""
    for nic in taps_made(ctx):
        port = await ctx.host.vif.describe(nic)
        # without a port too: a crash in between may have left the bare tap
        if port is None or _is_planned(port, nic):
            bridge = (port and port.bridge) or nic.bridge
            await ctx.host.vif.unplug(nic.model_copy(update={"bridge": bridge}), for_good=for_good)
