"""The VM's persistent definition on the source. libvirt lets anybody change it while it copies the VM
(`virsh edit`); the destination gets it as it was when the copy began.
"""

from __future__ import annotations

from hashlib import sha256

import structlog

from sterna.domain.copying import CopyPlan
from sterna.domain.definition_changes import DefinitionChanges
from sterna.domain.entries.notes import CopyStarted, DefinitionEdited
from sterna.domain.errors import NotFound, SternaError
from sterna.migration.context import Context

log = structlog.get_logger(__name__)

_MOST_CHARACTERS = 100_000
"""Of a text in the journal: several times as long as any definition."""


async def digest(ctx: Context) -> str:
    """Of the definition as it is now; '' where the VM has none, being transient. Raises Unreachable."""
    text = await _text(ctx)
    return sha256(text.encode()).hexdigest() if text else ""


async def changes(ctx: Context, plan: CopyPlan) -> DefinitionChanges | None:
    """What the destination is given differently, for people. None where the hypervisor does not say: the copy does
    not need it."""
    try:
        return await ctx.host.hypervisor.definition_changes(ctx.vm_uuid, plan)
    except SternaError as error:
        vm, why = ctx.migration.vm_name, error.message
        log.warning("what differs in the definition is not recorded", vm=vm, migration=ctx.migration.id, why=why)
        return None


async def keep_if_edited(ctx: Context) -> None:
    """Before it is removed: journal a definition that is not what the destination got. Raises Unreachable."""
    begun, text = ctx.history.find(CopyStarted), await _text(ctx)
    if begun is None or not begun.definition or not text:
        return
    if sha256(text.encode()).hexdigest() != begun.definition:
        ctx.note_change(DefinitionEdited(text=text[:_MOST_CHARACTERS]))


def words(ctx: Context) -> str:
    """For the last status; '' where nothing was changed."""
    if not ctx.history.has(DefinitionEdited):
        return ""
    source, destination = ctx.migration.source, ctx.migration.destination
    return (
        f"the VM's definition was changed on {source} during the migration, and {destination} has it without that "
        f"change (`sterna show {ctx.migration.id} --diff --json`, edited)"
    )


async def _text(ctx: Context) -> str:
    try:
        return await ctx.host.hypervisor.persistent_definition(ctx.vm_uuid)
    except NotFound:
        return ""
