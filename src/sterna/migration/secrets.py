"""Secrets that a VM's disks and TPM are opened with, from the source's libvirt to the destination's (ADR 13).

    source        before P3: which of them does the destination lack? their values, sealed, go along with P3
    destination   P9: one that is there is used as it is; one that is missing is made, and marked as made
    back          R5: what this migration made on the destination is undefined there
    forward       F10: what Sterna had made on the source for this VM is undefined there

A value is in no plan, result, note or error. It is sealed for the destination agent's present life: after a restart
of either agent P3 is asked again, and brings them again. Here is what both hosts need; the steps are in
`source/secrets.py` and `destination/secrets.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sterna.domain.entries.destination_notes import IncomingVm
from sterna.domain.journal import Role
from sterna.domain.model import Refusal, SecretRef, Vm
from sterna.domain.secrets import Need, Secret, lacks, names, refers, refs_of_vm, uncarriable
from sterna.migration.context import Context, HostPorts
from sterna.ports.records import Journal


def about(migration_id: str, key: str) -> str:
    """What a sealed value is good for: this secret, in this migration."""
    return f"{migration_id} {key}"


async def needs_of(host: HostPorts, vm: Vm) -> tuple[Need, ...]:
    """Source: the secrets the VM refers to, as this host's libvirt has them."""
    refs = refs_of_vm(vm)
    if not refs:
        return ()
    here = await host.hypervisor.secrets_like(refs)
    return tuple(Need(ref=r, known=next((s for s in here if refers(r, s)), None)) for r in refs)


async def lacking(
    host: HostPorts, needs: Sequence[Need], vm_uuid: str
) -> tuple[tuple[Need, ...], tuple[Refusal, ...]]:
    """Destination: which of them must be brought here, and what speaks against it."""
    if not needs:
        return (), ()
    here = await host.hypervisor.secrets_like([ref for need in needs for ref in names(need)])
    judged = [(need, lacks(need, here, host=host.name, vm_uuid=vm_uuid)) for need in needs]
    missing = {need.key: need for need, answer in judged if answer is True}
    return tuple(missing.values()), tuple(r for _, r in judged if isinstance(r, Refusal))


def cannot_bring(needs: Iterable[Need], missing: Iterable[str], source: str, destination: str) -> list[Refusal]:
    """Of the needs whose keys the destination named as lacking: why those that cannot be brought cannot."""
    keys = set(missing)
    reasons = (uncarriable(n, source=source, destination=destination) for n in needs if n.key in keys)
    return [reason for reason in reasons if reason is not None]


async def remove(ctx: Context, refs: Sequence[SecretRef], makers: set[str] | None) -> tuple[str, ...] | None:
    """Of the secrets that these refer to: those that Sterna made here for this VM. `makers`: by these alone.

    The UUIDs of those that were removed; None where there are no references.
    """
    if not refs:
        return None
    removed = []
    for secret in await ctx.host.hypervisor.secrets_like(refs):
        mine = secret.made_for == ctx.vm_uuid and (makers is None or secret.made_by in makers)
        if not mine or counted_on(ctx.journal, secret, besides=ctx.migration.id):
            continue
        if await ctx.host.hypervisor.remove_secret(secret.uuid, ctx.vm_uuid, secret.made_by):
            removed.append(secret.uuid)
    return tuple(removed)


def counted_on(journal: Journal, secret: Secret, *, besides: str = "") -> bool:
    """Does a guest on its way to this host refer to it, but for that of the migration `besides`?"""
    for migration, role in journal.open():
        if role is not Role.DESTINATION or migration.id == besides:
            continue
        for entry in journal.entries(migration.id):
            incoming = IncomingVm.of(entry)
            if incoming and any(refers(ref, secret) for ref in refs_of_vm(incoming.vm)):
                return True
    return False
