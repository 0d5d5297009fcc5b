"""A rehearsal (`sterna plan --rehearse`): a migration's own steps up to the copy, then its own rollback.

P1-P12 are real, and so is what undoes them. `Rehearse` comes between them and M1: it tries what would otherwise be
found out at M4. With a copy, M1-M4 are real as well, at libvirt's lowest bandwidth and without permission to switch
over; M3 ends it at its first sample. Nothing here is a second implementation of a step.
"""

from __future__ import annotations

from sterna.domain import untrusted
from sterna.domain.calls import RehearseThere
from sterna.domain.copying import CopyPlan
from sterna.domain.entries.base import NoPlan
from sterna.domain.entries.notes import Rehearsed
from sterna.domain.entries.source import DestinationAnswer, RehearsedOutcome
from sterna.domain.errors import Cancelled, Refused
from sterna.domain.hosts import Transport
from sterna.domain.model import Refusal
from sterna.domain.objective import CopyParameters
from sterna.domain.step import Step
from sterna.migration.context import Context
from sterna.migration.source import stream
from sterna.migration.source.asking import unless_aborted
from sterna.migration.source.copy_plan import copy_plan


class Rehearse(Step[Context, NoPlan, RehearsedOutcome]):
    """Before M1: the destination's libvirt translates the XML it would get, and TLS is spoken."""

    name = "rehearse"

    async def do(self, ctx: Context, plan: NoPlan) -> RehearsedOutcome:
        """What was tried. Raises Refused with everything that failed; Cancelled at the end of a dry rehearsal."""
        made_of = await stream.choose(ctx, None)
        tried, refusals = await unless_aborted(ctx, self._try(ctx, copy_plan(ctx, made_of), made_of))
        ctx.note(Rehearsed(tried=tuple(tried), refusals=tuple(refusals)))
        if refusals:
            raise Refused(refusals)
        if not ctx.rehearses_copy:
            raise Cancelled("it was a rehearsal: everything before the copy went well, and is undone")
        return RehearsedOutcome(tried=tuple(tried))

    async def _try(self, ctx: Context, plan: CopyPlan, made_of: CopyParameters) -> tuple[list[str], list[Refusal]]:
        """Changes nothing."""
        tls = made_of.transport is Transport.TLS
        xml = await ctx.host.hypervisor.definition_for(ctx.vm_uuid, plan)
        answer = await ctx.ask(RehearseThere(xml=xml, postcopy=plan.postcopy, tls=tls))
        refusals = list(answer.refusals)
        tried = ["volumes opened, ports plugged, nothing active", *answer.tried]
        port = untrusted.port(answer.port)
        if port and ctx.host.handshake is not None:
            address = ctx.history.get(DestinationAnswer).address
            refused = await ctx.host.handshake.shake(address, port)
            refusals += [refused] if refused is not None else []
            tried.append("TLS handshake with both hosts' certificates")
        return tried, refusals
