"""What a copy's stream is made of: the solver's answer for this guest on these two hosts, before M4.

Asked by the checks (`agent/source_checks.py`), so that what is impossible is refused before anything has begun.
Asked again right before the copy, with the measured load. The second answer is journaled, with its reasons.
"""

from __future__ import annotations

from sterna.domain import untrusted
from sterna.domain.capabilities import Capabilities, Guest, Pair
from sterna.domain.entries.notes import StreamChosen
from sterna.domain.entries.source import DestinationAnswer
from sterna.domain.errors import Permanent, Refused
from sterna.domain.hosts import HostFacts, Transport
from sterna.domain.model import Vm
from sterna.domain.objective import CopyParameters, Objective, Solution, solve
from sterna.migration.context import Context, HostPorts


def solution(
    wanted: Objective, here: HostFacts, there: HostFacts, vm: Vm, *, converges: bool | None = None
) -> Solution:
    """The solver's answer for `vm` from `here` to `there`."""
    hosts = Pair(source=Capabilities.of(here), destination=Capabilities.of(there))
    return solve(wanted, hosts, Guest.of(vm), converges=converges)


async def choose(ctx: Context, converges: bool | None) -> CopyParameters:
    """The copy's parameters, journaled.

    Raises Refused where there are none: the hosts have changed since the migration was accepted.
    """
    there = _destination(ctx)
    here = await ctx.host.hypervisor.host()
    found = solution(ctx.wanted, here, there, ctx.vm_before(), converges=converges)
    if found.parameters is None:
        raise Refused(found.refusals)
    ctx.note(StreamChosen(parameters=found.parameters, reasons=found.reasons, warnings=found.warnings))
    return found.parameters


async def transport_of(ctx: Context) -> Transport | None:
    """How the memory will travel; None where the hosts have changed, which `choose` says."""
    there = _destination(ctx)
    found = solution(ctx.wanted, await ctx.host.hypervisor.host(), there, ctx.vm_before())
    return found.parameters.transport if found.parameters is not None else None


def _destination(ctx: Context) -> HostFacts:
    """The other host as it described itself in P11. Raises Permanent."""
    facts = ctx.history.get(DestinationAnswer).host
    if facts is None:
        raise Permanent(f"{ctx.migration.destination} did not describe itself in its answer to P3")
    return facts


def control_uri(host: HostPorts, address: str, transport: Transport) -> str:
    """How this host's libvirtd dials the one at `address` for a copy that travels so. Raises BadRequest."""
    untrusted.address(address)
    return host.tunnel_uri(address) if transport is Transport.SSH else host.uri(address)
