"""Secrets a VM's disks are opened with, from the source's libvirt to the destination's (ADR 13).

    source        before P3: which of them does the destination lack? their values, sealed, go along with P3
    destination   P9: one that is there is used as it is; one that is missing is made, and marked as made
    back          R5: what this migration made on the destination is undefined there
    forward       F10: what Sterna had made on the source for this VM is undefined there

A value is in no plan, result, note or error. It is sealed for the destination agent's present life: after a restart
of either agent P3 is asked again, and brings them again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sterna.domain.errors import Refused, Temporary
from sterna.domain.journal import Role
from sterna.domain.model import Data, Disk, Refusal, Vm
from sterna.domain.secrets import Need, Secret, lacks, names, refers, refs_of, uncarriable
from sterna.domain.step import Step
from sterna.migration.context import Context, HostPorts
from sterna.ports.records import Journal


def about(migration_id: str, key: str) -> str:
    """What a sealed value is good for: this secret, in this migration."""
    return f"{migration_id} {key}"


async def needs_of(host: HostPorts, vm: Vm) -> tuple[Need, ...]:
    """Source: the secrets the VM refers to, as this host's libvirt has them."""
    refs = refs_of(vm.disks)
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


def cannot_bring(needs: Iterable[Need], told: Iterable[str], source: str, destination: str) -> list[Refusal]:
    """Of the needs whose keys the destination named as lacking: why those that cannot be brought cannot."""
    keys = set(told)
    reasons = (uncarriable(n, source=source, destination=destination) for n in needs if n.key in keys)
    return [reason for reason in reasons if reason is not None]


async def bring(ctx: Context, vm: Vm) -> Data:
    """Source, before P3: what goes along with it; {} for a VM without secrets.

    Raises Refused where one cannot be brought, Unreachable, Unknown.
    """
    needs = await needs_of(ctx.host, vm)
    if not needs:
        return {}
    told: Data = {"vm": vm.uuid, "needs": [n.model_dump(mode="json") for n in needs]}
    answer = await ctx.peer.call("secrets_wanted", told)
    m = ctx.migration
    refusals = [Refusal.model_validate(r) for r in answer["refusals"]]
    refusals += cannot_bring(needs, answer["lacking"], m.source, m.destination)
    if refusals:
        raise Refused(refusals)
    sealed = {}
    for need in needs:
        if need.key in answer["lacking"] and need.known is not None:
            value = await ctx.host.hypervisor.secret_value(need.known.uuid)
            key, good_for = str(answer["key"]), about(m.id, need.key)
            sealed[need.key] = ctx.host.sealing.seal(value, key=key, about=good_for)
    return {"secrets": {"needs": told["needs"], "sealed": sealed}}


class RemoveSecrets(Step[Context]):
    """R5, undo of the making: what this migration made here is undefined."""

    row, name = "R5", "remove-secrets"

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Found by its mark; what a domain here uses by now, or another guest on its way here counts on, stays."""
        attached = _attached(ctx)
        makers = {ctx.migration.id, *(d.attachment_id for d in attached if d.attachment_id)}
        return await _remove(ctx, [*ctx.incoming_vm().disks, *attached], makers)


class MakeSecrets(Step[Context]):
    """P9, before the volumes are opened: this host's libvirt has each secret that the VM's disks refer to."""

    row, name = "P9", "make-secrets"
    undo = (RemoveSecrets,)
    patience_s = 0.0  # what is missing comes with the next P3, not by itself

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Make those that are missing, with what P3 brought. Raises Refused; Temporary: bring it again."""
        needs = _needed(ctx)
        missing, refusals = await lacking(ctx.host, needs, ctx.vm_uuid)
        m = ctx.migration
        reasons = [*refusals, *cannot_bring(missing, [n.key for n in missing], m.source, m.destination)]
        if reasons:
            raise Refused(reasons)
        made = []
        for known in (need.known for need in missing if need.known is not None):
            await self._make(ctx, known)
            made.append(known.uuid)
        return {"made": made, "found": [n.key for n in needs if n.key not in made]} if needs else {}

    async def _make(self, ctx: Context, known: Secret) -> None:
        sealed = ctx.brought.get("sealed", {}).get(known.uuid)
        if sealed is None:
            raise Temporary(f"secret {known.uuid} is missing here and must be brought by {ctx.migration.source}")
        value = ctx.host.sealing.open(str(sealed), about=about(ctx.migration.id, known.uuid))
        marked = known.model_copy(update={"made_for": ctx.vm_uuid, "made_by": ctx.migration.id})
        await ctx.host.hypervisor.make_secret(marked, value)


def _needed(ctx: Context) -> list[Need]:
    """As the source tells of them: but for the logins in whose place P4 has put this host's own."""
    told = {n.ref: n for n in (Need.model_validate(raw) for raw in ctx.brought.get("needs", ()))}
    vm = ctx.incoming_vm()
    before, after = refs_of(vm.disks), refs_of([*_attached(ctx), *(d for d in vm.disks if d.local)])
    return [told.get(ref, Need(ref=ref)) for ref in before if ref in after]


def _attached(ctx: Context) -> list[Disk]:
    """The volumes as P4 found that this host reaches them."""
    return [Disk.model_validate(raw) for raw in ctx.history.results["attach-volumes"]["disks"]]


class RemoveSecretsAtSource(Step[Context]):
    """F10, after the definition: what an earlier migration had made here for this VM is undefined."""

    row, name = "F10", "remove-secrets-at-source"

    async def do(self, ctx: Context, plan: Data) -> Data:
        """Nobody else's, and none that is still referred to."""
        return await _remove(ctx, ctx.vm_before().disks, None)


async def _remove(ctx: Context, disks: Iterable[Disk], makers: set[str] | None) -> Data:
    """Of the secrets these disks refer to: those that Sterna made here for this VM. `makers`: by these alone."""
    refs = refs_of(disks)
    if not refs:
        return {}
    removed = []
    for secret in await ctx.host.hypervisor.secrets_like(refs):
        mine = secret.made_for == ctx.vm_uuid and (makers is None or secret.made_by in makers)
        if not mine or counted_on(ctx.journal, secret, besides=ctx.migration.id):
            continue
        if await ctx.host.hypervisor.remove_secret(secret.uuid, ctx.vm_uuid, secret.made_by):
            removed.append(secret.uuid)
    return {"removed": removed}


def counted_on(journal: Journal, secret: Secret, *, besides: str = "") -> bool:
    """Does a guest on its way to this host refer to it, but for that of the migration `besides`?"""
    for migration, role in journal.open():
        if role is not Role.DESTINATION or migration.id == besides:
            continue
        for entry in journal.entries(migration.id):
            if entry.name == "incoming-vm" and any(
                refers(ref, secret) for ref in refs_of(Vm.model_validate(entry.data["vm"]).disks)
            ):
                return True
    return False
