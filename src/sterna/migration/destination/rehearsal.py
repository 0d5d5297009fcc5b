"""The destination's part of a rehearsal: its libvirt checks the definition, post-copy and TLS."""

from __future__ import annotations

from sterna.domain.calls import RehearseThere, Tried
from sterna.domain.errors import SternaError
from sterna.domain.model import Refusal
from sterna.migration.context import Context
from sterna.ports.handshake import Handshake


async def rehearse_here(ctx: Context, asked: RehearseThere) -> Tried:
    """The destination's part."""
    tried, port = ["the destination's libvirt has translated its definition"], 0
    refusals = await ctx.host.hypervisor.check_definition(asked.xml)
    if asked.postcopy:
        refusals += await ctx.host.hypervisor.check_postcopy()
        tried.append("userfaultfd for post-copy")
    if asked.tls and ctx.host.handshake is not None:
        port = await _expect(ctx.host.handshake, refusals)
    return Tried(tried=tuple(tried), refusals=tuple(refusals), port=port)


async def _expect(handshake: Handshake, refusals: list[Refusal]) -> int:
    try:
        return await handshake.expect()
    except SternaError as error:
        refusals.append(Refusal(code="tls-handshake", message=error.message, fix=error.fix))
        return 0
