"""Before the copy: does a stream reach the destination? In the copy, a firewall's silence costs two minutes."""

from __future__ import annotations

from sterna.domain import untrusted
from sterna.domain.calls import ExpectStream
from sterna.domain.entries.base import NoPlan
from sterna.domain.entries.source import DestinationAnswer, StreamProbed
from sterna.domain.errors import Refused
from sterna.domain.hosts import Transport
from sterna.domain.step import Step
from sterna.migration.context import Context
from sterna.migration.source import stream
from sterna.migration.source.asking import unless_aborted


class ProbeStream(Step[Context, NoPlan, StreamProbed]):
    """Connect as QEMU will; while other migrations have every port of the destination, wait for one."""

    name = "probe-stream"
    reads_only = True
    patience_s = 600.0  # a large guest's copy may take longer: then libvirt's range is too small

    async def do(self, ctx: Context, plan: NoPlan) -> StreamProbed:
        """Raises Temporary while every port is taken, Refused where nothing comes through."""
        if ctx.host.probe is None or await stream.transport_of(ctx) is Transport.SSH:
            return StreamProbed()
        asked = ExpectStream(disks=any(disk.local for disk in ctx.vm_before().disks), begins=True)
        port = untrusted.port((await unless_aborted(ctx, ctx.ask(asked))).port)
        if not port:
            return StreamProbed()
        address = untrusted.address(ctx.history.get(DestinationAnswer).address)
        refused = await ctx.host.probe.knock(address, port)
        if refused is not None:
            raise Refused([refused])
        return StreamProbed(port=port)
