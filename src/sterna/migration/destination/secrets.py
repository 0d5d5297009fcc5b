"""Secrets on the destination: made at P9 from what P3 brought, removed in R5 (ADR 13)."""

from __future__ import annotations

from sterna.domain.entries.base import NoPlan
from sterna.domain.entries.destination import SecretsMade, SecretsRemoved, VolumesAttached
from sterna.domain.errors import Refused, Temporary
from sterna.domain.model import Disk
from sterna.domain.secrets import Need, Secret, refs_of, refs_of_tpm, refs_of_vm
from sterna.domain.step import Step
from sterna.migration.context import Context
from sterna.migration.secrets import about, cannot_bring, lacking, remove


class RemoveSecrets(Step[Context, NoPlan, SecretsRemoved]):
    """R5, undo of the making: what this migration made here is undefined."""

    row, name = "R5", "remove-secrets"

    async def do(self, ctx: Context, plan: NoPlan) -> SecretsRemoved:
        """Found by its mark; what a domain here uses by now, or another guest on its way here counts on, stays."""
        attached = _attached(ctx)
        makers = {ctx.migration.id, *(d.attachment_id for d in attached if d.attachment_id)}
        refs = dict.fromkeys((*refs_of_vm(ctx.incoming_vm()), *refs_of(attached)))
        return SecretsRemoved(removed=await remove(ctx, tuple(refs), makers))


class MakeSecrets(Step[Context, NoPlan, SecretsMade]):
    """P9, before the volumes are opened: this host's libvirt has each secret that the VM refers to."""

    row, name = "P9", "make-secrets"
    undo = (RemoveSecrets,)
    patience_s = 0.0  # what is missing comes with the next P3, not by itself

    async def do(self, ctx: Context, plan: NoPlan) -> SecretsMade:
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
        if not needs:
            return SecretsMade()
        return SecretsMade(made=tuple(made), found=tuple(n.key for n in needs if n.key not in made))

    async def _make(self, ctx: Context, known: Secret) -> None:
        sealed = ctx.brought.sealed.get(known.uuid)
        if sealed is None:
            raise Temporary(f"secret {known.uuid} is missing here and must be brought by {ctx.migration.source}")
        value = ctx.host.sealing.open(sealed, about=about(ctx.migration.id, known.uuid))
        marked = known.model_copy(update={"made_for": ctx.vm_uuid, "made_by": ctx.migration.id})
        await ctx.host.hypervisor.make_secret(marked, value)


def _needed(ctx: Context) -> list[Need]:
    """The source's list, without the CHAP logins that P4 replaced with this host's own."""
    needs = {need.ref: need for need in ctx.brought.needs}
    vm = ctx.incoming_vm()
    stay = (*(disk for disk in vm.disks if disk.local), *vm.cold)
    before, after = refs_of_vm(vm), (*refs_of([*_attached(ctx), *stay]), *refs_of_tpm(vm))
    return [needs.get(ref, Need(ref=ref)) for ref in before if ref in after]


def _attached(ctx: Context) -> tuple[Disk, ...]:
    """The volumes as P4 found that this host reaches them."""
    return ctx.history.get(VolumesAttached).disks
