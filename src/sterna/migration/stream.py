"""What a copy's stream is made of: the solver's answer for this guest on these two hosts, before M4.

Asked when a migration is judged (`agent/checks.py`), so that what cannot be is refused before anything has begun,
and again right before the copy, with what the measurement said. The second answer is journaled, with its reasons.
"""

from __future__ import annotations

from sterna.domain.capabilities import Capabilities, Guest, Pair
from sterna.domain.errors import Permanent, Refused
from sterna.domain.model import HostFacts, Transport, Vm
from sterna.domain.objective import CopyParameters, Objective, Solution, solve
from sterna.migration.context import STREAM, Context, HostPorts


def solution(
    wanted: Objective, here: HostFacts, there: HostFacts, vm: Vm, *, converges: bool | None = None
) -> Solution:
    """The solver's answer for `vm` from `here` to `there`."""
    hosts = Pair(source=Capabilities.of(here), destination=Capabilities.of(there))
    return solve(wanted, hosts, Guest.of(vm), converges=converges)


async def choose(ctx: Context, wanted: Objective, converges: bool | None) -> CopyParameters | None:
    """The copy's parameters, journaled. None where the destination (an older version) has not said what it can.

    Raises Refused where there are none: the hosts have changed since the migration was accepted. Permanent where
    plain TCP will not do for a destination that says nothing.
    """
    told = ctx.history.results["pre-live-migration"].get("host")
    here = await ctx.host.hypervisor.host()
    if told is None:
        if {wanted.transport, here.abilities.transport} - {None, Transport.TCP}:
            why = f"{ctx.migration.destination}'s agent does not say whether it can take more than plain TCP"
            raise Permanent(why, fix="update the sterna agent there")
        return None
    found = solution(wanted, here, HostFacts.model_validate(told), ctx.vm_before(), converges=converges)
    if found.parameters is None:
        raise Refused(found.refusals)
    ctx.note("M3", STREAM, found.model_dump(mode="json", exclude={"refusals"}))
    return found.parameters


def control_uri(host: HostPorts, address: str, transport: Transport) -> str:
    """How this host's libvirtd dials the one at `address` for a copy that travels so."""
    return host.tunnel_uri(address) if transport is Transport.SSH else host.uri(address)
