"""Before the copy: does a stream reach the destination? In the copy, a firewall's silence costs two minutes."""

from __future__ import annotations

from sterna.domain import untrusted
from sterna.domain.errors import Refused
from sterna.domain.hosts import Transport
from sterna.domain.model import Data
from sterna.domain.step import Step
from sterna.migration.context import Context
from sterna.migration.source import stream
from sterna.migration.source.asking import unless_aborted


class ProbeStream(Step[Context]):
    """Connect as QEMU will; while other migrations have every port of the destination, wait for one."""

    name = "probe-stream"
    reads_only = True
    patience_s = 600.0  # a large guest's copy may take longer: then libvirt's range is too small

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Raises Temporary while every port is taken, Refused where nothing comes through."""
        if ctx.host.probe is None or await stream.transport_of(ctx) is Transport.SSH:
            return {}
        params: Data = {"disks": any(disk.local for disk in ctx.vm_before().disks), "begins": True}
        port = untrusted.port((await unless_aborted(ctx, ctx.peer.call("expect_stream", params)))["port"])
        if not port:
            return {}
        address = untrusted.address(ctx.history.results["pre-live-migration"]["address"])
        refused = await ctx.host.probe.knock(address, port)
        if refused is not None:
            raise Refused([refused])
        return {"port": port}
