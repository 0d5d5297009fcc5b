"""The VM's persistent definition on the source. libvirt lets anybody change it while it copies the VM
(`virsh edit`); the destination gets it as it was when the copy began.
"""

from __future__ import annotations

from hashlib import sha256

from sterna.domain.entries.notes import CopyStarted, DefinitionEdited
from sterna.domain.errors import NotFound
from sterna.migration.context import Context

_MOST_CHARACTERS = 100_000
"""Of a text in the journal: several times as long as any definition."""


async def digest(ctx: Context) -> str:
    """Of the definition as it is now; '' where the VM has none, being transient. Raises Unreachable."""
    text = await _text(ctx)
    return sha256(text.encode()).hexdigest() if text else ""


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
        f"change (`sterna show {ctx.migration.id} --timeline --json`, {DefinitionEdited.entry})"
    )


async def _text(ctx: Context) -> str:
    try:
        return await ctx.host.hypervisor.persistent_definition(ctx.vm_uuid)
    except NotFound:
        return ""
