"""What libvirt is given for the copy, from the snapshot (P2), the destination's answer (P11) and the solver's."""

from __future__ import annotations

from collections.abc import Iterator

from sterna.domain import untrusted
from sterna.domain.addresses import in_uri
from sterna.domain.claims import left_behind
from sterna.domain.copying import CopyPlan, DestinationDisk
from sterna.domain.entries.source import DestinationAnswer
from sterna.domain.hosts import Transport
from sterna.domain.model import DiskKind
from sterna.domain.objective import CopyParameters
from sterna.migration.context import Context
from sterna.migration.source import stream

SLOWEST_MIB_S = 1
"""The least bandwidth that libvirt accepts."""


def copy_plan(ctx: Context, made_of: CopyParameters) -> CopyPlan:
    """All that libvirt needs, from the snapshot (P2), the destination's answer (P11) and the solver's."""
    answer = ctx.history.get(DestinationAnswer)
    transport = made_of.transport
    return CopyPlan(
        migration_id=ctx.migration.id,
        epoch=ctx.migration.epoch,
        destination_uri=stream.control_uri(ctx.host, answer.address, transport),
        migrate_uri=None if transport is Transport.SSH else f"tcp://{in_uri(untrusted.address(answer.address))}",
        disks=(*answer.disks, *_emptied(ctx)),
        nics=answer.nics,
        listens=answer.listens,
        persistent=ctx.vm_before().persistent,
        flags=made_of.flags,
        parameters=_numbers(ctx, made_of),
    )


def _emptied(ctx: Context) -> Iterator[DestinationDisk]:
    """Drives whose medium stays behind: with its name in the definition, whatever has that name would be opened."""
    for disk in ctx.vm_before().disks:
        if left_behind(disk):
            yield DestinationDisk(target=disk.target, kind=DiskKind.EMPTY)


def _numbers(ctx: Context, made_of: CopyParameters) -> dict[str, int | str]:
    """libvirt's parameters: a rehearsed copy has the slowest bandwidth there is."""
    numbers = dict(made_of.parameters)
    if ctx.rehearses_copy:
        numbers["bandwidth"] = SLOWEST_MIB_S
        if made_of.postcopy:
            numbers["bandwidth.postcopy"] = SLOWEST_MIB_S
    return numbers
