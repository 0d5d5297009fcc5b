"""P12 on the destination: until the switch, and the network agent, forward for the ports made at P10."""

from __future__ import annotations

from sterna.domain.entries.source import PortsWired
from sterna.domain.errors import (
    Permanent,
    Temporary,
)
from sterna.domain.model import Nic
from sterna.domain.plugs import is_wired_by_agent
from sterna.migration.context import Context
from sterna.migration.destination.taps import taps_made

AGENT_LOOK_S = 0.05
"""How closely a network agent is followed: a look at the local copy of the switch's records."""


async def wait_wired(ctx: Context, *, patience_s: float = 30.0) -> PortsWired:
    """P12, the destination's half: until every tap made at P10 is wired. Raises Temporary after `patience_s`."""
    nics = taps_made(ctx)
    deadline = ctx.clock.monotonic_ms() + patience_s * 1000
    for nic in nics:
        while not await ctx.host.vif.wired(nic):
            if ctx.clock.monotonic_ms() > deadline:
                raise Temporary(f"{nic.device} is plugged but the switch does not forward for it yet")
            await ctx.clock.sleep(0.05)
    wired = PortsWired(wired=tuple(nic.device for nic in nics))
    return await _wait_for_agent(ctx, nics, wired) if ctx.host.network.service or ctx.host.wait_for else wired


async def _wait_for_agent(ctx: Context, nics: list[Nic], wired: PortsWired) -> PortsWired:
    """Until this host's network agent has wired the ports too: what is wired before the guest arrives costs it
    nothing. The switch itself is where that is seen first. Raises Permanent where that is fatal."""
    began, limit_ms = ctx.clock.monotonic_ms(), ctx.host.vif_plugging_timeout_s * 1000
    for nic in nics:
        while not is_wired_by_agent(await ctx.host.vif.describe(nic), ctx.host.wait_for):
            if ctx.clock.monotonic_ms() - began > limit_ms:
                why = (
                    f"the network agent of {ctx.host.name} has not wired {nic.device} within {limit_ms / 1000:g} s"
                )
                if ctx.host.vif_plugging_is_fatal:
                    raise Permanent(
                        why, fix="see its log; or let migrations continue anyway (vif_plugging_is_fatal)"
                    )
                return wired.model_copy(update={"by_agent": False, "why": why})
            await ctx.clock.sleep(AGENT_LOOK_S)
    return wired.model_copy(update={"by_agent": True})
