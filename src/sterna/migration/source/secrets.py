"""Secrets on the source: sent, sealed, with P3; those that Sterna had made here are removed at F10 (ADR 13)."""

from __future__ import annotations

from sterna.domain.calls import PreLiveMigration, SecretsWanted
from sterna.domain.entries.base import NoPlan
from sterna.domain.entries.source import SecretsRemovedAtSource
from sterna.domain.errors import Refused
from sterna.domain.secrets import Brought, refs_of_vm
from sterna.domain.step import Step
from sterna.migration.context import Context
from sterna.migration.secrets import about, cannot_bring, needs_of, remove


async def bring(ctx: Context, call: PreLiveMigration) -> PreLiveMigration:
    """Source, before P3: with the secrets that go along with it; as it is for a VM without any.

    Raises Refused where one cannot be brought, Unreachable, Unknown.
    """
    needs = await needs_of(ctx.host, call.vm)
    if not needs:
        return call
    answer = await ctx.ask(SecretsWanted(vm=call.vm.uuid, needs=needs))
    m = ctx.migration
    refusals = [*answer.refusals, *cannot_bring(needs, answer.lacking, m.source, m.destination)]
    if refusals:
        raise Refused(refusals)
    sealed = {}
    for need in needs:
        if need.key in answer.lacking and need.known is not None:
            value = await ctx.host.hypervisor.secret_value(need.known.uuid)
            sealed[need.key] = ctx.host.sealing.seal(value, key=answer.key, about=about(m.id, need.key))
    return call.model_copy(update={"secrets": Brought(needs=needs, sealed=sealed)})


class RemoveSecretsAtSource(Step[Context, NoPlan, SecretsRemovedAtSource]):
    """F10, after the definition: what an earlier migration had made here for this VM is undefined."""

    row, name = "F10", "remove-secrets-at-source"

    async def do(self, ctx: Context, plan: NoPlan) -> SecretsRemovedAtSource:
        """Only this migration's own, and none that is still referred to."""
        return SecretsRemovedAtSource(removed=await remove(ctx, refs_of_vm(ctx.vm_before()), None))
