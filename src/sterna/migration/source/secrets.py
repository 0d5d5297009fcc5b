"""Secrets on the source: sent, sealed, with P3; those that Sterna had made here are removed at F10 (ADR 13)."""

from __future__ import annotations

from sterna.domain.entries.base import NoPlan
from sterna.domain.entries.source import SecretsRemovedAtSource
from sterna.domain.errors import Refused
from sterna.domain.model import Data, Refusal, Vm
from sterna.domain.step import Step
from sterna.migration.context import Context
from sterna.migration.secrets import about, cannot_bring, needs_of, remove


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


class RemoveSecretsAtSource(Step[Context, NoPlan, SecretsRemovedAtSource]):
    """F10, after the definition: what an earlier migration had made here for this VM is undefined."""

    row, name = "F10", "remove-secrets-at-source"

    async def do(self, ctx: Context, plan: NoPlan) -> SecretsRemovedAtSource:
        """Nobody else's, and none that is still referred to."""
        return SecretsRemovedAtSource(removed=await remove(ctx, ctx.vm_before().disks, None))
